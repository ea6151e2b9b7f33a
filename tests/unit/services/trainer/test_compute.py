import pytest

from services.trainer import compute
from services.trainer.errors import JobError
from services.trainer.run_options import MixedPrecision

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

AMX = {"amx_bf16": True, "avx512_bf16": True}
ZEN4 = {"amx_bf16": False, "avx512_bf16": True}
AVX2 = {"avx2": True, "amx_bf16": False}


@pytest.fixture
def cpu(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """A machine without a GPU, of these instructions."""
    capabilities: dict[str, bool] = request.param
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)


@pytest.mark.parametrize("cpu", [AVX2, {}], indirect=True)
@pytest.mark.usefixtures("cpu")
def test_a_cpu_that_would_emulate_it_refuses() -> None:
    compute.check(MixedPrecision.NONE)
    for precision in (MixedPrecision.BF16, MixedPrecision.FP16):
        with pytest.raises(JobError, match=f"--mixed-precision {precision} needs a CUDA GPU"):
            compute.check(precision)
    assert not compute.hint(MixedPrecision.NONE)


@pytest.mark.parametrize("cpu", [AMX, ZEN4], indirect=True)
@pytest.mark.usefixtures("cpu")
def test_a_cpu_with_instructions_for_it_says_so() -> None:
    compute.check(MixedPrecision.BF16)
    with pytest.raises(JobError, match="or take bf16"):
        compute.check(MixedPrecision.FP16)
    assert "--mixed-precision bf16" in compute.hint(MixedPrecision.NONE)
    assert not compute.hint(MixedPrecision.BF16)


def test_a_gpu_takes_all_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    for precision in MixedPrecision:
        compute.check(precision)
        assert not compute.hint(precision)


@pytest.mark.parametrize("cpu", [AMX], indirect=True)
@pytest.mark.usefixtures("cpu")
def test_bfloat16_on_a_cpu_does_without_fused_attention() -> None:
    config = transformers.AutoConfig.for_model(
        "bert", vocab_size=64, hidden_size=32, num_hidden_layers=1, num_attention_heads=4, intermediate_size=64
    )
    model = torch.nn.Sequential(transformers.AutoModel.from_config(config))
    fused = model[0].config._attn_implementation
    compute.choose_attention(model, MixedPrecision.NONE)
    assert model[0].config._attn_implementation == fused != "eager"
    compute.choose_attention(model, MixedPrecision.BF16)
    assert model[0].config._attn_implementation == "eager"


@pytest.mark.parametrize("cpu", [AMX], indirect=True)
@pytest.mark.usefixtures("cpu")
def test_passes_besides_training_calculate_as_it_does() -> None:
    layer, rows = torch.nn.Linear(4, 4), torch.ones(2, 4)
    for precision, dtype in ((MixedPrecision.NONE, torch.float32), (MixedPrecision.BF16, torch.bfloat16)):
        with compute.autocast(precision):
            assert layer(rows).dtype == dtype


def test_dropout_is_the_base_s_own_unless_it_is_given() -> None:
    model = torch.nn.Sequential(torch.nn.Dropout(0.1), torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Dropout()))
    compute.set_dropout(model, -1)
    assert [model[0].p, model[1][1].p] == [0.1, 0.5]
    compute.set_dropout(model, 0)
    assert [model[0].p, model[1][1].p] == [0, 0]
    with pytest.raises(JobError, match="--dropout 1"):
        compute.set_dropout(model, 1)
