"""Draw the account of device memory as an SVG: one stacked bar for each phase of a run."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape

from npu.proof.recorded_account import HOLDERS, MIB, Accounts, Row

COLORS = ("#4269d0", "#97bbf5", "#a463f2", "#ff725c", "#efb118", "#9c6b4e")
WIDTH, LEFT, RIGHT = 960, 60, 10
PANEL, TITLE, LEGEND, LABELS = 220, 26, 46, 190


def draw(accounts: Accounts) -> str:
    """Return the text of an SVG with a panel for each account, all on one scale."""
    peak = max(row.total for rows in accounts.values() for row in rows)
    height = LEGEND + len(accounts) * (TITLE + PANEL) + LABELS
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="sans-serif" '
        'font-size="12">',
        f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
        *_legend(),
    ]
    top = LEGEND
    for name, rows in accounts.items():
        highest = max(row.total for row in rows)
        title = f"{name}: at most {highest / MIB:.0f} MiB of a chip"
        lines.append(f'<text x="{LEFT}" y="{top + 18}" font-weight="bold">{escape(title)}</text>')
        lines += _panel(rows, peak, top + TITLE)
        top += TITLE + PANEL
    (rows, *_) = accounts.values()
    lines += _labels(rows, top)
    return "\n".join([*lines, "</svg>", ""])


def _legend() -> Iterator[str]:
    for i, (holder, color) in enumerate(zip(HOLDERS, COLORS, strict=True)):
        x, y = LEFT + i % 3 * 280, 8 + i // 3 * 18
        yield f'<rect x="{x}" y="{y}" width="12" height="12" fill="{color}"/>'
        yield f'<text x="{x + 18}" y="{y + 10}">{escape(holder)}</text>'


def _panel(rows: list[Row], peak: int, top: float) -> Iterator[str]:
    scale = (PANEL - 10) / peak
    base = top + PANEL - 4
    for tick in range(0, peak + 1, _step(peak)):
        y = base - tick * scale
        yield f'<line x1="{LEFT}" y1="{y:.1f}" x2="{WIDTH - RIGHT}" y2="{y:.1f}" stroke="#dddddd"/>'
        yield f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{tick // MIB}</text>'
    width = (WIDTH - LEFT - RIGHT) / len(rows)
    for i, row in enumerate(rows):
        y = base
        for holder, color in zip(HOLDERS, COLORS, strict=True):
            size = row.held.get(holder, 0) * scale
            y -= size
            if size:
                across = f'x="{LEFT + (i + 0.1) * width:.1f}" width="{width * 0.8:.1f}"'
                yield f'<rect {across} y="{y:.1f}" height="{size:.1f}" fill="{color}"/>'


def _labels(rows: list[Row], top: float) -> Iterator[str]:
    width = (WIDTH - LEFT - RIGHT) / len(rows)
    for i, row in enumerate(rows):
        x = LEFT + (i + 0.6) * width
        text = escape(row.label)
        yield f'<text transform="translate({x:.1f} {top + 8}) rotate(-60)" text-anchor="end">{text}</text>'


def _step(peak: int) -> int:
    """Return the distance of the ticks, a power of two in bytes, so that there are four to eight of them."""
    step = MIB
    while peak / step > 8:
        step *= 2
    return step
