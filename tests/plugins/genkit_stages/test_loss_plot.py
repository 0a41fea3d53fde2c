from __future__ import annotations

import pytest

from genkit_stages import loss_plot as module
from genkit_stages.loss_plot import loss_plot


@pytest.fixture
def drawn(monkeypatch):
    """The figures that were written, besides their files."""
    figures = []
    render = module.png_of

    def keep(figure):
        figures.append(figure)
        return render(figure)

    monkeypatch.setattr(module, "png_of", keep)
    return figures


def test_the_loss_is_drawn_with_its_running_mean(tmp_path, drawn):
    images = [256 * k for k in range(1, 101)]
    loss = [1 + (-1) ** k * 0.5 for k in range(100)]
    (tmp_path / "loss.png").write_bytes(loss_plot(images, loss))
    (axes,) = drawn[0].axes
    logged, mean = axes.get_lines()
    assert list(logged.get_ydata()) == loss
    assert mean.get_ydata()[50] == pytest.approx(sum(loss[48:53]) / 5)
    assert [text.get_text() for text in axes.texts] == ["logged", "running mean"]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("images seen", "loss")


@pytest.mark.parametrize("count", [0, 1])
def test_a_loss_of_few_values_is_drawn(tmp_path, count):
    (tmp_path / "loss.png").write_bytes(loss_plot([256.0] * count, [0.5] * count))
    assert (tmp_path / "loss.png").stat().st_size > 0
