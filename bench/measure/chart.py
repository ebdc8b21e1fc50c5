"""Bars as SVG, without a library: one bar a system, its figure beside it, a logarithmic axis where the range demands it."""
import math
from xml.sax.saxutils import escape

WIDTH, LABELS, FIGURES, ROW, HEAD, FOOT = 900, 250, 90, 26, 62, 34
PLAIN, OURS = "#7a8ca5", "#d1495b"

# From so large a quotient of the largest and the smallest on, small bars could not be seen on a linear axis.
LOG_FROM = 20


def scale(values):
    """(from, to, logarithmic) of the axis for these positive values."""
    low, high = min(values), max(values)
    if high / low < LOG_FROM:
        return 0.0, high * 1.02, False
    return 10.0 ** math.floor(math.log10(low) - 0.01), 10.0 ** math.ceil(math.log10(high) - 0.01), True


def position(value, axis):
    """0 … 1 along the axis."""
    low, high, log = axis
    return math.log(value / low) / math.log(high / low) if log else (value - low) / (high - low)


def ticks(axis):
    """Round values on the axis."""
    low, high, log = axis
    if log:
        return [10.0 ** e for e in range(round(math.log10(low)), round(math.log10(high)) + 1)]
    step = 10.0 ** math.floor(math.log10(high))
    step = next(s for s in (step / 5, step / 2, step, step * 2) if high / s <= 6)
    return [step * i for i in range(int(high / step) + 1)]


def figure(value):
    """Three digits that count."""
    if value >= 1000:
        digits = max(0, len(str(round(value))) - 3)
        return f"{round(value, -digits):,.0f}"
    return f"{value:.3g}"


def _text(x, y, text, anchor="start", size=13, weight="normal", fill="#222"):
    return (f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}" font-weight="{weight}" fill="{fill}">'
            f"{escape(text)}</text>")


def bars(title, unit, rows, ours=()):
    """An SVG document. rows: [(name, value > 0)], drawn in this order; those named in `ours` stand out."""
    axis = scale([v for _, v in rows])
    room, bottom = WIDTH - LABELS - FIGURES, HEAD + ROW * len(rows)
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{bottom + FOOT}" viewBox="0 0 {WIDTH} {bottom + FOOT}" '
           'font-family="sans-serif">', f'<rect width="{WIDTH}" height="{bottom + FOOT}" fill="#fff"/>',
           _text(16, 26, title, size=17, weight="bold"), _text(16, 46, unit + (", logarithmic" if axis[2] else ""), fill="#555")]
    for tick in ticks(axis):
        x = LABELS + room * (position(tick, axis) if tick else 0.0)
        out += [f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{HEAD - 4}" y2="{bottom}" stroke="#ddd"/>',
                _text(x, bottom + 18, figure(tick) if tick else "0", "middle", 11, fill="#555")]
    for n, (name, value) in enumerate(rows):
        y, length = HEAD + ROW * n, room * position(value, axis)
        bold = "bold" if name in ours else "normal"
        out += [_text(LABELS - 8, y + 16, name, "end", weight=bold),
                f'<rect x="{LABELS}" y="{y + 3}" width="{max(length, 1.0):.1f}" height="{ROW - 8}" fill="{OURS if name in ours else PLAIN}"/>',
                _text(LABELS + max(length, 1.0) + 6, y + 16, figure(value), weight=bold)]
    return "\n".join([*out, "</svg>\n"])
