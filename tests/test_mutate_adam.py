"""scripts/mutate_adam.py breaks Adam in many places; here, that every one of them is still there to be broken."""

from __future__ import annotations

import pytest

from scripts import mutate_adam


@pytest.mark.parametrize("variant", mutate_adam.VARIANTS, ids=lambda variant: variant.name)
def test_variant_fits_to_the_sources(variant, repository):
    text = mutate_adam.broken(variant, repository)  # raises where a text that it replaces is not there exactly once
    assert text != (repository / "toolkit/optimizers" / variant.file).read_text()
    compile(text, variant.file, "exec")


def test_variants_differ_and_every_backend_has_25():
    variants = mutate_adam.VARIANTS
    assert len({v.name for v in variants}) == len({(v.file, *v.edits) for v in variants}) == len(variants)
    for backend in mutate_adam.BACKENDS:
        assert sum(backend in v.backends for v in variants) >= 25


@pytest.mark.parametrize(("count", "text"), [(0, "x = 1\n"), (2, "rate = 1\nrate = 1\n")])
def test_a_stale_variant_is_named(count, text, tmp_path):
    (tmp_path / "toolkit/optimizers").mkdir(parents=True)
    (tmp_path / "toolkit/optimizers/adam.py").write_text(text)
    stale = mutate_adam.Variant("too_fast", "the rate is too large", "adam.py", [("rate = 1", "rate = 2")])
    with pytest.raises(mutate_adam.Unusable, match=f"too_fast replaces stands {count} times in .*adam.py, not once"):
        mutate_adam.broken(stale, tmp_path)
