"""What shoppers do: kept, counted, and told again. The only code that knows SQL."""
