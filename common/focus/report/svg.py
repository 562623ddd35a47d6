"""Charts as SVG: pure functions from figures to markup. The XML library escapes all text.

Colours are classes (``s1`` … ``s8``, ``other``), so that the page's style sets them for light and dark mode.
"""

import re
import xml.etree.ElementTree as ET
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal

WIDTH, HEIGHT = 560, 250
LEFT, RIGHT, TOP, BOTTOM = 52, 6, 14, 24
ROW, BAR = 38, 14
MAX_LABEL = 52
COLOURS = 8
CONTROL = re.compile(
    r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff\u200e\u200f\u202a-\u202e\u2066-\u2069]"
)
"""Characters that XML forbids, and controls that would reverse the direction of the surrounding text."""


@dataclass(frozen=True, slots=True)
class Bar:
    """One horizontal bar with the text ``shown``. ``until`` is a paler bar behind it, ``low`` to ``high`` a line."""

    label: str
    value: Decimal
    shown: str
    colour: str = "s1"
    until: Decimal | None = None
    low: Decimal | None = None
    high: Decimal | None = None


def plain(text: object) -> str:
    """Return text that is safe in a page: without control characters."""
    return CONTROL.sub("\N{REPLACEMENT CHARACTER}", str(text))


def colours(names: Sequence[str]) -> dict[str, str]:
    """Return a colour class for each name, in order; names beyond the eighth share one."""
    return {name: f"s{number}" if number <= COLOURS else "other" for number, name in enumerate(names, 1)}


def stacked_days(
    days: Mapping[date, Mapping[str, Decimal]], classes: Mapping[str, str], marked: Mapping[date, str], about: str
) -> str:
    """Draw a stacked bar for each day; negative parts are drawn below zero. ``marked`` days get a triangle.

    ``about`` is the description for screen readers.
    """
    ups = [sum((v for v in parts.values() if v > 0), Decimal(0)) for parts in days.values()]
    downs = [sum((v for v in parts.values() if v < 0), Decimal(0)) for parts in days.values()]
    scale = _Scale.of(min([*downs, Decimal(0)]), max([*ups, Decimal(0)]))
    svg = _svg(WIDTH, HEIGHT, "Daily cost", about)
    for tick in scale.ticks:
        y = scale.y(tick)
        _line(svg, LEFT, y, WIDTH - RIGHT, y, "axis" if tick == 0 else "grid")
        _text(svg, LEFT - 6, y + 4, _short(tick), "end")
    step = (WIDTH - LEFT - RIGHT) / max(len(days), 1)
    for number, (day, parts) in enumerate(days.items()):
        x = LEFT + number * step
        up, down = Decimal(0), Decimal(0)
        group = ET.SubElement(svg, "g")
        ET.SubElement(group, "title").text = plain(_tooltip(day, parts, marked.get(day, "")))
        for name in classes:
            value = parts.get(name, Decimal(0))
            base, top = (up, up + value) if value > 0 else (down + value, down)
            if value > 0:
                up = top
            elif value < 0:
                down = base
            else:
                continue
            _rect(group, x + step * 0.12, scale.y(top), step * 0.76, scale.y(base) - scale.y(top), classes[name])
        if day in marked:
            middle, y = x + step / 2, scale.y(up) - 4
            points = f"{middle:.1f},{y:.1f} {middle - 5:.1f},{y - 8:.1f} {middle + 5:.1f},{y - 8:.1f}"
            ET.SubElement(group, "polygon", {"points": points, "class": "mark"})
        if len(days) <= 10 or day.day == 1 or day.day % 5 == 0:
            _text(svg, x + step / 2, HEIGHT - 8, str(day.day), "middle")
    return _markup(svg)


def bars(rows: Sequence[Bar], title: str, about: str) -> str:
    """Draw horizontal bars from zero, each below its label; negative bars extend to the left."""
    values = [v for row in rows for v in (row.value, row.until, row.low, row.high) if v is not None]
    scale = _Scale.of(min([*values, Decimal(0)]), max([*values, Decimal(0)]))
    height = max(len(rows), 1) * ROW + 6
    svg = _svg(WIDTH, height, title, about)

    def x(value: Decimal) -> float:
        return 4 + float((value - scale.low) / (scale.high - scale.low)) * (WIDTH - 8)

    for number, row in enumerate(rows):
        y = number * ROW + 18
        group = ET.SubElement(svg, "g")
        ET.SubElement(group, "title").text = plain(f"{row.label}: {row.shown}")
        _text(group, 4, y - 4, row.label if len(row.label) <= MAX_LABEL else row.label[: MAX_LABEL - 1] + "…", "start")
        _text(group, WIDTH - 4, y - 4, row.shown, "end", "value")
        if row.until is not None:
            _span(group, x(Decimal(0)), x(row.until), y, f"{row.colour} pale")
        _span(group, x(Decimal(0)), x(row.value), y, row.colour)
        if row.low is not None and row.high is not None and row.low != row.high:
            middle = y + BAR / 2
            _line(group, x(row.low), middle, x(row.high), middle, "range")
            for end in (x(row.low), x(row.high)):
                _line(group, end, middle - 5, end, middle + 5, "range")
        if scale.low < 0:
            _line(group, x(Decimal(0)), y - 2, x(Decimal(0)), y + BAR + 2, "axis")
    return _markup(svg)


@dataclass(frozen=True, slots=True)
class _Scale:
    """A range that includes zero, with round numbers as ticks from end to end."""

    low: Decimal
    high: Decimal
    ticks: tuple[Decimal, ...]

    @classmethod
    def of(cls, least: Decimal, most: Decimal) -> "_Scale":
        if least == most:
            most = least + 1  # all figures are 0: a range of no height would divide by zero
        rough = (most - least) / 4
        power = Decimal(1).scaleb(rough.adjusted())
        step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough)
        first = int((least / step).to_integral_value(ROUND_FLOOR))
        last = int((most / step).to_integral_value(ROUND_CEILING))
        ticks = tuple(step * number for number in range(first, last + 1))
        return cls(ticks[0], ticks[-1], ticks)

    def y(self, value: Decimal) -> float:
        return TOP + float((self.high - value) / (self.high - self.low)) * (HEIGHT - TOP - BOTTOM)


def _tooltip(day: date, parts: Mapping[str, Decimal], mark: str) -> str:
    lines = [f"{day}: {_short(sum(parts.values(), Decimal(0)))}"]
    lines += [f"{name}: {_short(value)}" for name, value in sorted(parts.items(), key=lambda item: -item[1])]
    return "\n".join([*lines, mark] if mark else lines)


def _short(value: Decimal) -> str:
    """Format a figure in a few characters: 1.2M, 340k, 12, 0.004."""
    for size, unit in ((Decimal(1_000_000), "M"), (Decimal(1_000), "k")):
        if abs(value) >= size * 10 or (abs(value) >= size and unit == "M"):
            return f"{_three(value / size)}{unit}"
    return _three(value)


def _three(value: Decimal) -> str:
    rounded = value if value == 0 else round(value, max(2 - value.adjusted(), 0))
    text = f"{rounded:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _svg(width: float, height: float, title: str, about: str) -> ET.Element:
    box = {"viewBox": f"0 0 {width} {height}", "role": "img", "aria-label": plain(f"{title}. {about}")}
    svg = ET.Element("svg", box)
    ET.SubElement(svg, "title").text = plain(title)
    ET.SubElement(svg, "desc").text = plain(about)
    return svg


def _text(parent: ET.Element, x: float, y: float, text: str, anchor: str, kind: str = "label") -> None:
    element = ET.SubElement(parent, "text", {"x": f"{x:.1f}", "y": f"{y:.1f}", "text-anchor": anchor, "class": kind})
    element.text = plain(text)


def _line(parent: ET.Element, x1: float, y1: float, x2: float, y2: float, kind: str) -> None:
    ends = {"x1": f"{x1:.1f}", "y1": f"{y1:.1f}", "x2": f"{x2:.1f}", "y2": f"{y2:.1f}", "class": kind}
    ET.SubElement(parent, "line", ends)


def _rect(parent: ET.Element, x: float, y: float, width: float, height: float, kind: str) -> None:
    size = {"x": f"{x:.1f}", "y": f"{y:.1f}", "width": f"{width:.1f}", "height": f"{max(height, 0):.1f}"}
    ET.SubElement(parent, "rect", {**size, "class": kind})


def _span(parent: ET.Element, start: float, end: float, y: float, kind: str) -> None:
    _rect(parent, min(start, end), y, max(abs(end - start), 0.5), BAR, kind)


def _markup(svg: ET.Element) -> str:
    return ET.tostring(svg, encoding="unicode", short_empty_elements=True)
