"""The style sheet of a report's page."""

STYLE = """
body{margin:0;background:#fff;color:#1c2126}
body{font:16px/1.5 system-ui,-apple-system,"Segoe UI",sans-serif}
main{max-width:1240px;margin:0 auto;padding:16px;overflow-wrap:anywhere}
h1{font-size:1.5rem;line-height:1.25;margin:.2em 0}
h2{font-size:1.3rem;margin:2em 0 .4em;padding-bottom:.2em;border-bottom:2px solid #1c2126}
h3{font-size:1.1rem;margin:1.8em 0 .4em}
h4{font-size:.95rem;margin:1.2em 0 .3em}
p,ul{margin:.4em 0}
.made,.small{color:#59636e;font-size:.85rem}
.lead{font-size:1.1rem;font-weight:600}
.note{background:#fff3d6;border-left:4px solid #e69f00;padding:.4em .7em}
.wide{overflow-x:auto}
table{border-collapse:collapse;font-size:.88rem;font-variant-numeric:tabular-nums}
th,td{padding:.3em .6em;text-align:right;border-bottom:1px solid #dde1e5;overflow-wrap:normal}
th{background:#f3f5f7;vertical-align:bottom;font-weight:600}
th.word,td.word{text-align:left}
td.long{min-width:24em;max-width:32em;overflow-wrap:anywhere}
.charts{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,420px),1fr));gap:12px}
.charts figure{margin:0}
.chart{width:100%;height:auto;display:block}
.chart text{font-size:13px;fill:#1c2126}
.chart .grid{stroke:#e3e7ea}.chart .axis{stroke:#1c2126;fill:none}
figcaption{font-size:.85rem}
.legend{list-style:none;padding:0;margin:.5em 0;font-size:.88rem}
.key{width:26px;height:10px;margin-right:8px}
.gallery{display:grid;grid-template-columns:repeat(auto-fill,minmax(150px,1fr));gap:10px}
.gallery figure{margin:0}
.gallery svg{width:100%;height:auto;display:block;background:#000}
.gallery image{image-rendering:pixelated}
.gallery figcaption{font-size:.78rem;line-height:1.3;margin-top:3px}
.file{color:#59636e}
.box{fill:none;stroke-width:1.5px;vector-effect:non-scaling-stroke}
.box.meant{stroke-width:2.5px}
.truth{stroke:#56b4e9;stroke-dasharray:4 3}
.hit{stroke:#00c78c}.miss{stroke:#ffb000}.false{stroke:#ff5a1f}
.c-truth{color:#1f7fb8}.c-hit{color:#00785a}.c-miss{color:#9a6a00}.c-false{color:#c23b00}
details{margin:.4em 0}summary{cursor:pointer}
dl{display:grid;grid-template-columns:auto 1fr;gap:.1em .8em}
dl{font-size:.85rem;margin:.4em 0 .4em 1em}
dt{color:#59636e;white-space:nowrap}dd{margin:0;font-family:ui-monospace,monospace}
"""
