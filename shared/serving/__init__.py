"""What the three model services share: settings, metrics of the engine, conversions. The engine knows none of it."""
