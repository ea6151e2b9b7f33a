"""Who the trainer is to the services it asks (`AISLE_TRAINER_MTLS_…`)."""

from shared.settings import MtlsSettings, settings_config


class TrainerSettings(MtlsSettings):
    """Its certificate, where services want one."""

    model_config = settings_config("trainer")
