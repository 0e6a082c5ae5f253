"""The template of the campaign's page: one HTML file that needs nothing else."""

STYLE = """
:root{--bg:#f6f7f9;--card:#fff;--ink:#1b2430;--muted:#5d6875;--line:#dde2e8;--link:#1d5fae;--head:#eef1f4;
--ok:#1f7a46;--degraded:#b25e00;--rejected:#b3261e;--error:#8b1fa9;--dot:#2667b5;--mark:#d9731a}
@media (prefers-color-scheme:dark){:root{--bg:#11161c;--card:#1a2129;--ink:#e3e8ee;--muted:#98a4b1;--line:#2d3742;
--link:#7db4f5;--head:#222b35;--ok:#63c48d;--degraded:#f0a64b;--rejected:#ff8a80;--error:#d79bf0;--dot:#7db4f5;
--mark:#f0a64b}}
*{box-sizing:border-box}body{margin:0;background:var(--bg);color:var(--ink);
font:13px/1.45 system-ui,-apple-system,"Segoe UI",Roboto,"DejaVu Sans",sans-serif;font-variant-numeric:tabular-nums}
main{max-width:1500px;margin:0 auto;padding:18px 22px 60px}h1{font-size:21px;margin:0 0 2px}
h2{font-size:16px;margin:30px 0 8px}a{color:var(--link);text-decoration:none}a:hover{text-decoration:underline}
.muted{color:var(--muted)}.tiles{display:flex;flex-wrap:wrap;gap:10px;margin:14px 0}
.tile{background:var(--card);border:1px solid var(--line);border-radius:6px;padding:8px 16px;min-width:96px}
.tile b{display:block;font-size:22px;line-height:1.2}.ok{color:var(--ok)}.degraded{color:var(--degraded)}
.rejected{color:var(--rejected)}.error{color:var(--error)}.status{font-weight:600}
.wide{overflow-x:auto;background:var(--card);border:1px solid var(--line);border-radius:6px}
table{border-collapse:collapse;width:100%}th,td{padding:4px 5px;text-align:left;border-bottom:1px solid var(--line);
vertical-align:middle}tr:last-child>td{border-bottom:0}th{background:var(--head);font-weight:600;white-space:nowrap}
table.sortable th{cursor:pointer}th[aria-sort=ascending]::after{content:" \\2191"}
th[aria-sort=descending]::after{content:" \\2193"}td.n,th.n{text-align:right;white-space:nowrap}
td.why{min-width:130px;max-width:420px;overflow-wrap:anywhere}td.t{white-space:nowrap}
details.files summary{color:var(--link);white-space:nowrap}
td img{height:44px;display:block;border-radius:3px}details summary{cursor:pointer;color:var(--degraded)}
details ul{margin:4px 0;padding-left:18px}.problems{background:var(--card);border:1px solid var(--line);
border-left:4px solid var(--rejected);border-radius:6px;padding:6px 14px;margin:10px 0}
.problems div{padding:2px 0;overflow-wrap:anywhere}
.gallery{display:grid;grid-template-columns:repeat(auto-fill,minmax(410px,1fr));gap:12px}
.card{background:var(--card);border:1px solid var(--line);border-radius:6px;padding:10px 12px;
content-visibility:auto;contain-intrinsic-size:auto 300px}
.card h3{font-size:14px;margin:0;display:flex;justify-content:space-between;gap:8px}
.tag{font-size:11px;font-weight:600;border:1px solid var(--line);border-radius:9px;padding:0 8px;color:var(--muted)}
.stamps img{width:100%;image-rendering:pixelated;display:block;border-radius:3px}
.stamps div{display:grid;grid-template-columns:repeat(4,1fr);font-size:11px;color:var(--muted);text-align:center}
.facts{margin:4px 0;overflow-wrap:anywhere}.facts b{font-weight:600}svg{display:block;width:100%;height:auto}
svg text{fill:var(--muted);font-size:10px}.axis{stroke:var(--line);stroke-width:1}.err{stroke:var(--dot)}
.dot{fill:var(--dot)}.forced{fill:var(--card);stroke:var(--dot)}.foot{fill:var(--dot);fill-opacity:.05;
stroke:var(--dot);stroke-opacity:.6;stroke-width:.8}.src{fill:none;stroke:var(--mark);stroke-width:1.6}
.maps{display:grid;grid-template-columns:repeat(auto-fill,minmax(340px,1fr));gap:12px}
.thumb{width:72px;height:44px;margin-left:auto}.curve{fill:none;stroke-width:1.6}
.mark{stroke:var(--muted);stroke-dasharray:2 2}
.sky{stroke:var(--dot)}.host{stroke:var(--mark)}.point.sky{fill:var(--dot)}.point.host{fill:var(--mark)}
.band{stroke:none;fill-opacity:.14}.band.sky{fill:var(--dot)}.band.host{fill:var(--mark)}
.half{align-items:start;display:grid;grid-template-columns:repeat(auto-fit,minmax(340px,1fr));gap:12px}
"""

SCRIPT = """
document.querySelectorAll("table.sortable").forEach(function(table){
 table.querySelectorAll("th").forEach(function(head,column){head.addEventListener("click",function(){
  var up=head.getAttribute("aria-sort")!=="ascending",body=table.tBodies[0];
  table.querySelectorAll("th").forEach(function(other){other.removeAttribute("aria-sort")});
  head.setAttribute("aria-sort",up?"ascending":"descending");
  var key=function(row){return row.cells[column].dataset.v||""};
  Array.from(body.rows).sort(function(a,b){var p=key(a),q=key(b),d;
   if((p==="")!==(q===""))return p===""?1:-1;
   d=head.classList.contains("n")?p-q:p.localeCompare(q);return up?d:-d}).forEach(function(row){body.append(row)})})})})
"""

PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1">
<title>Nightsift: {{ summary.n_sources }} sources in {{ summary.n_images }} images</title>
<style>{{ style }}</style></head><body><main>
<h1>Campaign report</h1>
<div class="muted">{{ summary.span }}{% if summary.filters %} · filters {{ summary.filters|join(", ") }}{% endif %}
 · tables <a href="images.ecsv">images</a>, <a href="candidates.ecsv">candidates</a>,
 <a href="sources.ecsv">sources</a>, <a href="lightcurves.ecsv">light curves</a>,
 <a href="uncatalogued.ecsv">not in the catalogue</a>
 · on this page <a href="#sources">sources</a>, <a href="#uncatalogued">not in the catalogue</a>,
 <a href="#images">images</a>, <a href="#complete">completeness</a>,
 <a href="#model">real and bogus</a>, {% if maps %}<a href="#sky">sky</a>,
 {% endif %}<a href="#aside">set aside</a></div>
<div class="tiles">
<div class="tile"><b>{{ summary.n_sources }}</b>sources</div>
<div class="tile"><b>{{ summary.n_candidates }}</b>candidates</div>
<div class="tile"><b>{{ summary.n_uncatalogued }}</b>not in the catalogue</div>
<div class="tile"><b>{{ summary.n_images }}</b>images</div>
{% for status, count in summary.statuses %}<div class="tile"><b class="{{ status if count }}">{{ count }}</b>
{{ status }}</div>{% endfor %}
<div class="tile"><b>{{ summary.n_aside }}</b>set aside</div></div>
{% if problems %}<div class="problems">{% for row in problems %}
<div><a href="#image-{{ row.anchor }}">{{ row.image }}</a>
 <span class="status {{ row.status }}">{{ row.status }}</span>{% if row.stage %} in {{ row.stage }}{% endif %}:
 {{ row.reason }}</div>{% endfor %}{% if more_problems %}<div class="muted">and {{ more_problems }} more: sort the
 table of images by status</div>{% endif %}</div>{% endif %}

<h2 id="sources">Sources, best first</h2>
{% if cards|length < summary.n_sources %}<p class="muted">The best {{ cards|length }} of {{ summary.n_sources }};
 all are in <a href="sources.ecsv">sources.ecsv</a>.</p>{% endif %}
{% if not cards %}<p class="muted">No image has a candidate.</p>{% endif %}
<div class="gallery">
{% for card in cards %}<article class="card" id="source-{{ loop.index }}">
<h3><span>{{ loop.index }}. {{ card.source }}</span>{% if card.label %}<span class="tag">{{ card.label }}</span>
{% endif %}</h3>
<div class="facts"><b title="probability of being real">P(real) {{ card.score }}</b> · <b>S/N {{ card.snr }}</b> ·
 {{ card.mag }} · detected in {{ card.n_detections }} of {{ card.n_images }} images · {{ card.when }}</div>
{% if card.stamps %}<a class="stamps" href="{{ card.difference }}"><img alt="image, template, difference and S/N"
 src="{{ card.stamps }}"><div><span>image</span><span>template</span><span>difference</span><span>S/N</span></div></a>
{% else %}<p class="muted">no cutouts</p>{% endif %}
{{ card.curve }}
{% if card.known %}<div class="facts">{{ card.known|join(" · ") }}</div>{% endif %}
<div class="facts muted">{{ card.position }} · {{ card.details }} · best in
 <a href="#image-{{ card.anchor }}">{{ card.image }}</a> at ({{ card.pixel }}) ·
 <a href="{{ card.aladin }}">Aladin</a> · <a href="{{ card.simbad }}">Simbad</a></div></article>
{% endfor %}</div>

<h2 id="uncatalogued">Not in the catalogue</h2>
{% if uncatalogued %}{% if uncatalogued|length < summary.n_uncatalogued %}<p class="muted">The best
 {{ uncatalogued|length }} of {{ summary.n_uncatalogued }}; all are in
 <a href="uncatalogued.ecsv">uncatalogued.ecsv</a>.
</p>{% endif %}<div class="wide"><table class="sortable"><thead><tr><th>place</th><th>what</th><th>position</th>
<th class="n">S/N</th><th class="n">magnitude</th><th class="n" title="all catalogue light at its place">catalogue</th>
<th class="n" title="distance of the nearest catalogue star">star at, ″</th><th class="n">images</th><th>best in</th>
<th>known</th><th>sky</th></tr></thead><tbody>
{% for row in uncatalogued %}<tr><td class="t" data-v="{{ row.source }}">{{ row.source }}</td>
<td data-v="{{ row.label }}">{{ row.label }}</td><td class="t" data-v="{{ row.position }}">{{ row.position }}</td>
{% for value, text in row.cells %}<td class="n" data-v="{{ value }}">{{ text }}</td>{% endfor %}
<td class="t" data-v="{{ row.image }}"><a href="#image-{{ row.anchor }}">{{ row.image }}</a> at ({{ row.pixel }})</td>
<td data-v="{{ row.known }}">{{ row.known }}</td><td class="t" data-v=""><a href="{{ row.aladin }}">Aladin</a>
 <a href="{{ row.simbad }}">Simbad</a></td></tr>
{% endfor %}</tbody></table></div>
<p class="muted">Objects of the images, without a template: new ones, and stars much brighter than in the catalogue.
 What was set aside stands with its reasons in uncatalogued_all.fits of its image.</p>
{% else %}<p class="muted">The catalogue explains every object that it could.</p>{% endif %}

<h2 id="images">Images</h2>
<div class="wide"><table class="sortable"><thead><tr><th></th><th>image</th><th>status</th><th>reason, warnings</th>
<th>filter</th><th class="n">time, UTC</th><th class="n">FWHM</th><th class="n">zp</th><th class="n">limit</th>
<th class="n" title="magnitude at which half of the fakes on blank sky are found">m50</th>
<th class="n" title="magnitude at which nine in ten are found">m90</th>
<th class="n">astrom.</th><th class="n">objects</th><th class="n">cand.</th>
<th class="n" title="objects that the catalogue should have and has not">uncat.</th>
<th class="n" title="threshold of the search">S/N ≥</th>
<th class="n" title="share of fakes found against S/N; sorted by the S/N where it is half">found</th>
<th class="n" title="area under the ROC curve of the image's examples">ROC</th><th>more</th></tr>
</thead><tbody>
{% for row in images %}<tr id="image-{{ row.anchor }}"><td>{% if row.thumbnail %}<a href="{{ row.overview }}"><img
 loading="lazy" alt="" src="{{ row.thumbnail }}"></a>{% endif %}</td><td class="t" data-v="{{ row.image }}">
{{ row.image }}</td><td data-v="{{ row.rank }}" class="status {{ row.status }}">{{ row.status }}</td>
<td class="why" data-v="{{ row.reason }}">{% if row.reason %}{{ row.stage }}{{ ": " if row.stage }}{{ row.reason }}
{% endif %}{% if row.warnings %}
<details><summary>{{ row.warnings|length }} warning{{ "s" if row.warnings|length > 1 }}</summary>
<ul>{% for text in row.warnings %}<li>{{ text }}</li>
{% endfor %}</ul></details>{% endif %}</td><td data-v="{{ row.filter }}">{{ row.filter }}</td>
{% for cell in row.cells %}<td class="n" data-v="{{ cell.value }}"{% if cell.title %} title="{{ cell.title }}"
{% endif %}>{{ cell.text }}</td>{% endfor %}
<td class="n" data-v="{{ row.threshold }}">{{ row.threshold }}</td><td class="n" data-v="{{ row.found_value }}">
{% if row.found_plot %}<a href="{{ row.found_plot }}">{{ row.found }}</a>{% else %}{{ row.found }}{% endif %}</td>
<td class="n" data-v="{{ row.auc }}" title="{{ row.model }}">{{ row.auc }}</td>
<td data-v="">{% if row.plots %}<details class="files"><summary>{{ row.plots|length }} figures</summary>
{% for name, short, link in row.plots %}
<a href="{{ link }}" title="{{ name }}">{{ short }}</a>
{% endfor %}</details>{% endif %}{% if row.files %}
<details class="files"><summary>{{ row.files|length }} files</summary>
{% for name, link in row.files %}<a href="{{ link }}">{{ name }}</a><br>{% endfor %}</details>{% endif %}</td></tr>
{% endfor %}</tbody></table></div>

<h2 id="complete">Completeness</h2>
{% if complete %}<div class="half"><div class="card"><div class="facts muted">Fakes of all images that the search found,
 and the median curve of the images with the range of the middle two thirds</div>{{ complete }}</div>
<div><div class="wide"><table><thead><tr><th>filter</th><th class="n">images</th><th class="n">limit</th>
<th class="n">m50</th><th class="n">m90</th><th class="n">S/N, half found</th></tr></thead><tbody>
{% for row in filters %}<tr><td>{{ row.filter }}</td><td class="n">{{ row.known }} of {{ row.images }}</td>
{% for name in ("maglim", "m50", "m90", "snr50") %}<td class="n">{{ row[name] }}<br><span class="muted">
{{ row[name ~ "_range"] }}</span></td>{% endfor %}</tr>{% endfor %}</tbody></table></div>
<p class="muted">Medians and ranges over the images that have fakes. m50, m90: magnitudes at which 50 and 90 % of
 fakes on blank sky are found; limit: S/N 5 of the image's objects.</p></div></div>
{% else %}<p class="muted">No image has enough fakes to tell how complete its search is.</p>{% endif %}

<h2 id="model">Real and bogus</h2>
{% if model %}<div class="half"><div><div class="wide"><table><tbody>{% for name, text in model.rows %}
<tr><th>{{ name }}</th><td>{{ text }}</td></tr>{% endfor %}</tbody></table></div>
<p class="muted">Examples are fakes, and what is known to be false, of the images; each is scored by a model that did
 not see it. All images: <a href="model_card.json">model_card.json</a>.</p></div>
{% if model.bins %}<div><div class="wide"><table><thead><tr><th>score</th><th class="n">examples</th>
<th class="n">mean score</th><th class="n">share that is real</th></tr></thead><tbody>{% for row in model.bins %}
<tr><td>{{ row.score }}</td><td class="n">{{ row.number }}</td><td class="n">{{ row.mean }}</td>
<td class="n">{{ row.real }}</td></tr>{% endfor %}</tbody></table></div>
<p class="muted">The score is the probability of being real where the last two columns agree.</p></div>{% endif %}</div>
{% else %}<p class="muted">No image was searched.</p>{% endif %}

{% if maps %}<h2 id="sky">Sky</h2><div class="maps">{% for map in maps %}<div class="card">
<div class="facts muted">{{ map.title }}</div>{{ map.svg }}</div>{% endfor %}</div>{% endif %}

<section><h2 id="aside">Set aside by vetting</h2>
{% if aside %}<div class="wide"><table><thead><tr><th>reason</th><th class="n">candidates</th><th class="n">for this
 alone</th><th>meaning</th></tr></thead><tbody>{% for row in aside %}<tr><td>{{ row.reason }}</td>
<td class="n">{{ row.count }}</td><td class="n">{{ row.alone }}</td><td class="muted">{{ row.hint }}</td>
</tr>{% endfor %}</tbody></table></div>
<p class="muted">{{ summary.n_aside }} in all; each stands with its reasons in candidates_all.fits of its image,
 known objects in <a href="candidates.ecsv">candidates.ecsv</a>.</p>
{% else %}<p class="muted">Nothing was set aside.</p>{% endif %}</section>
</main><script>{{ script }}</script></body></html>
"""
