"""Which version of a model a registry's services run: publish, promote, roll back."""
