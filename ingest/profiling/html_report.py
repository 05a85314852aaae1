"""A profile as a page for browsers: one file, without scripts and without anything from a network.

Charts are rows of a label, a bar and a number, so that they are as wide as the screen is. Colours are those of Okabe
and Ito ("Color Universal Design", 2008), which people of all kinds of colour vision can tell apart; none means
something that is not written beside it, too.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from ingest.profiling.advice import LIMITS, plural
from ingest.profiling.result import INTO_TENSORFLOW, Profile
from ingest.profiling.text_report import STAGE_DESCRIPTIONS, is_tried, limits, next_steps, size_of, title
from ingest.profiling.throughput import OURS

_COLOURS = {"disk": "#d55e00", "decode": "#56b4e9", "resize": "#e69f00", "Python": "#009e73", "ipc": "#cc79a7"}
_OURS, _OTHERS, _MEASURED = "#56b4e9", "#999999", "#009e73"

_STYLE = """
:root { color-scheme: light dark;
  --page: #ffffff; --text: #1b1b1b; --soft: #5c5c5c; --line: #d9d9d9; --track: #f0f0f0; }
@media (prefers-color-scheme: dark) {
  :root { --page: #16181c; --text: #ececec; --soft: #a8adb5; --line: #3a3e45; --track: #23262c; }
}
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.5rem 1rem 3rem; max-width: 60rem; background: var(--page); color: var(--text);
  font: 16px/1.5 system-ui, sans-serif; }
h1, p, .label { overflow-wrap: anywhere; }
h1 { font-size: 1.4rem; line-height: 1.3; margin: 0 0 .3rem; }
h2 { font-size: 1.1rem; margin: 2.2rem 0 .2rem; }
p { margin: .2rem 0 .8rem; }
.soft { color: var(--soft); font-size: .9rem; }
.row { display: grid; grid-template-columns: minmax(6rem, 13rem) 1fr 5.5rem; gap: .1rem .7rem; align-items: center;
  padding: .12rem 0; }
.row > :last-child { text-align: right; font-variant-numeric: tabular-nums; }
.label small { color: var(--soft); display: block; line-height: 1.2; }
.track { position: relative; height: 1.15rem; background: var(--track); border-radius: 3px; }
.bar { position: absolute; top: 0; bottom: 0; min-width: 2px; border-radius: 3px; }
.mark { position: absolute; top: -.2rem; bottom: -.2rem; margin-left: -2px; border-left: 2px dashed var(--text); }
.key { display: flex; flex-wrap: wrap; gap: .2rem 1.2rem; margin: .4rem 0; font-size: .9rem; }
.key i { display: inline-block; width: .8em; height: .8em; border-radius: 2px; margin-right: .4em; }
table { border-collapse: collapse; width: 100%; margin: .4rem 0 1rem; font-size: .95rem; }
caption { text-align: left; color: var(--soft); padding: .2rem 0; }
th, td { text-align: left; padding: .25rem .8rem .25rem 0; border-bottom: 1px solid var(--line); vertical-align: top;
  overflow-wrap: break-word; }
td.number, th.number { text-align: right; padding-right: 0; padding-left: .6rem; font-variant-numeric: tabular-nums; }
@media (max-width: 34rem) {
  .row { grid-template-columns: 1fr 5rem; }
  .row > .track { grid-column: 1 / -1; grid-row: 2; }
  .row { padding: .3rem 0; }
}
"""


def render(result: Profile) -> str:
    """The page of a profile, HTML."""
    parts = [
        f"<h1>{escape(result.verdict)}</h1>",
        f'<p class="soft">{escape(result.shards)}: {escape(title(result))}</p>',
        *_section("Where an image's time goes", _waterfall(result)),
        *_section("Images a second, by workers", _by_workers(result)),
        *(_section("Beside other loaders", _against(result)) if result.against else ()),
        *_section("What to change", _advice(result)),
        *_section("All numbers", _tables(result)),
        *_section("The machine", [_table("", ("", ""), result.machine.items())]),
    ]
    head = (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        # An icon that is there keeps browsers from looking for one.
        '<link rel="icon" href="data:,">\n'
        f"<title>Profile of {escape(result.shards)}</title>\n<style>{_STYLE}</style>\n</head>\n"
    )
    return f"{head}<body>\n" + "\n".join(parts) + "\n</body>\n</html>\n"


def _section(heading: str, content: Iterable[str]) -> list[str]:
    return [f"<section>\n<h2>{escape(heading)}</h2>", *content, "</section>"]


def _waterfall(result: Profile) -> list[str]:
    total, start, rows = sum(result.stages.values()), 0.0, []
    kinds = {stage: kind for kind, parts in LIMITS.items() for stage in parts}
    for stage, cost in result.stages.items():
        bar = _bar(start / total, cost / total, _COLOURS[kinds[stage]])
        rows.append(_row(stage, STAGE_DESCRIPTIONS[stage], bar, f"{cost:,.1f} us"))
        start += cost
    used = [kind for kind in _COLOURS if any(kinds[stage] == kind for stage in result.stages)]
    return [
        f'<p class="soft">Microseconds of one core for one image, {total:,.0f} in all, one stage after the other: '
        f"a core can give {1e6 / total:,.0f} images/s.</p>",
        _key({kind: _COLOURS[kind] for kind in used}),
        *rows,
    ]


def _by_workers(result: Profile) -> list[str]:
    most = max([*limits(result).values(), *result.by_workers.values()])
    mark = f'<span class="mark" style="left:{_percent(result.alone / most)}"></span>'
    rows = [
        _row(plural(workers, "worker"), "", _bar(0, rate / most, _OURS) + mark, f"{rate:,.0f}")
        for workers, rate in result.by_workers.items()
    ]
    rows += [
        _row(name, "", _bar(0, rate / most, _OTHERS) + mark, f"{rate:,.0f}") for name, rate in limits(result).items()
    ]
    return ['<p class="soft">The dashed line is what decoding and the resize alone allow, on all cores.</p>', *rows]


def _against(result: Profile) -> list[str]:
    rates = result.against
    most = max(rates.values())
    about = f"Images/s into TensorFlow, with {plural(result.workers, 'worker')}, on the same shards in the same minute."
    return [
        f'<p class="soft">{about}</p>',
        *(
            _row(name, "", _bar(0, rate / most, _OURS if name == OURS else _OTHERS), f"{rate:,.0f}")
            for name, rate in rates.items()
        ),
    ]


def _advice(result: Profile) -> list[str]:
    if not result.advice:
        return [f"<p>{escape(next_steps(result))}</p>"]
    now = result.images_per_second
    most = max([now, *(max(change.predicted, change.measured or 0) for change in result.advice)])
    rows = [_row("as it is", "", _bar(0, now / most, _OTHERS), f"{now:,.0f}")]
    for change in result.advice:
        rows.append(
            _row(
                str(change),
                size_of(change, result),
                _bar(0, change.predicted / most, _OURS),
                f"{change.predicted:,.0f}",
            )
        )
        if change.measured is not None:
            rows.append(_row("", "measured", _bar(0, change.measured / most, _MEASURED), f"{change.measured:,.0f}"))
    key = {"predicted": _OURS} | ({"measured": _MEASURED} if is_tried(result) else {})
    return [f'<p class="soft">Images/s. {escape(next_steps(result))}</p>', _key(key), *rows]


def _tables(result: Profile) -> list[str]:
    stages = [(stage, STAGE_DESCRIPTIONS[stage], f"{cost:,.1f}") for stage, cost in result.stages.items()]
    stages.append(("in all", "", f"{sum(result.stages.values()):,.1f}"))
    if result.feed_microseconds is not None:
        stages.append((INTO_TENSORFLOW, "in the process that trains", f"{result.feed_microseconds:,.1f}"))
    stages += [(name, f"not measured: {reason}", "") for name, reason in result.left_out.items()]
    if result.disk_read_microseconds is not None:
        stages.append(("read from disk", "where it is not in memory", f"{result.disk_read_microseconds:,.1f}"))
    rates = [(plural(workers, "worker"), f"{rate:,.0f}") for workers, rate in result.by_workers.items()]
    rates += [(name, f"{rate:,.0f}") for name, rate in limits(result).items()]
    rates += [(f"{name}, into TensorFlow", f"{rate:,.0f}") for name, rate in result.against.items()]
    if result.consumer:
        waits = f"{result.consumer.name}, waiting {result.consumer.waiting:.0%} of its time"
        rates.append((waits, f"{result.consumer.images_per_second:,.0f}"))
    tables = [
        _table("Stages", ("stage", "what it is", "us of a core an image"), stages),
        _table("Rates", ("who", "images/s"), rates),
    ]
    if result.advice:
        changes = [
            (str(change), f"{change.predicted:,.0f}", "" if change.measured is None else f"{change.measured:,.0f}")
            for change in result.advice
        ]
        tables.append(_table("Advice, in images/s", ("change", "predicted", "measured"), changes))
    if result.target:
        cores = {"as it is": result.target.cores, **result.target.cores_by_packing}
        about = f"Cores for {result.target.images_per_second:,.0f} images/s ({result.target.whose})"
        tables.append(_table(about, ("shards", "cores"), [(how, str(number)) for how, number in cores.items()]))
    return tables


def _row(label: str, about: str, bars: str, value: str) -> str:
    small = f"<small>{escape(about)}</small>" if about else ""
    name = f'<span class="label">{escape(label)}{small}</span>'
    return f'<div class="row">{name}<span class="track">{bars}</span><span>{escape(value)}</span></div>'


def _bar(start: float, length: float, colour: str) -> str:
    return f'<span class="bar" style="left:{_percent(start)};width:{_percent(length)};background:{colour}"></span>'


def _percent(share: float) -> str:
    return f"{100 * share:.2f}%"


def _key(colours: dict[str, str]) -> str:
    entries = (f'<span><i style="background:{colour}"></i>{escape(name)}</span>' for name, colour in colours.items())
    return f'<div class="key">{"".join(entries)}</div>'


def _table(caption: str, heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; columns of numbers stand at the right."""
    rows = list(rows)
    columns = range(len(heads))
    numbers = {column for column in columns if heads[column] and all(_is_number(row[column]) for row in rows)}

    def cells(tag: str, row: Sequence[str]) -> str:
        kinds = [f"{tag} class=number" if column in numbers else tag for column in columns]
        return "".join(f"<{kind}>{escape(cell)}</{tag}>" for kind, cell in zip(kinds, row, strict=True))

    title = f"<caption>{escape(caption)}</caption>" if caption else ""
    head = f"<thead><tr>{cells('th', heads)}</tr></thead>" if any(heads) else ""
    body = "".join(f"<tr>{cells('td', row)}</tr>" for row in rows)
    return f"<table>{title}{head}<tbody>{body}</tbody></table>"


def _is_number(cell: str) -> bool:
    return not cell or cell.replace(",", "").replace(".", "").isdigit()
