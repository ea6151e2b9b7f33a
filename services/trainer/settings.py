"""Settings of the trainer (`AISLE_TRAINER_…`): what is no option of a run, for it changes nothing that is learnt."""

from pydantic import Field

from shared.settings import MtlsSettings, settings_config


class TrainerSettings(MtlsSettings):
    """Its certificate, where the services it asks want one; and where else it logs."""

    model_config = settings_config("trainer")

    wandb_project: str = Field(
        "",
        description="Weights & Biases project that runs log to, besides TensorBoard. Empty: none, for it is another "
        "company's machine. WANDB_API_KEY, WANDB_MODE, WANDB_ENTITY and so on say the rest.",
    )
