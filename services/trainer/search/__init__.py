"""Which settings of `finetune-encoder` a shop's data like best. Optuna chooses; here is what it chooses for."""
