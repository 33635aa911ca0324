// The page of task=serve: sends a scene to /detect and draws what comes back over its overview.
"use strict";
const $ = (id) => document.getElementById(id);
const canvas = $("map");
const pen = canvas.getContext("2d");
const COLOURS = ["#ffb02e", "#4cc9f0", "#b8f35c", "#ff6fae", "#b79cff", "#ff8552", "#5eead4", "#facc15"];

let answer = null; // what /detect returned
let overview = null; // its picture
let view = { x: 0, y: 0, zoom: 1 }; // scene pixel at the canvas's corner, canvas pixels per scene pixel
let chosen = -1;

fetch("health").then((reply) => reply.json()).then((health) => {
  $("about").textContent = `${health.model} on ${health.device}: ${health.classes.join(", ")}`;
  $("score").min = $("score").value = health.min_score; // nothing below it is sent
  redraw();
}).catch(() => say("the service does not answer", true));

function say(sentence, bad = false) {
  $("say").textContent = sentence;
  $("say").classList.toggle("bad", bad);
}

async function detect(request, name) {
  say(`looking for objects in ${name} …`);
  $("other").disabled = $("save").disabled = true;
  const began = performance.now();
  try {
    const reply = await request();
    const content = await reply.json();
    if (!reply.ok) throw new Error(typeof content.detail === "string" ? content.detail : `the service answered ${reply.status}`);
    await show(content);
    const seconds = ((performance.now() - began) / 1000).toFixed(1);
    $("say").dataset.done = name;
    if (content.warning) say(content.warning, true);
    else say(`${name}: ${content.image.width} × ${content.image.height} px, ${content.features.length} candidates, ${seconds} s`);
  } catch (error) {
    say(`${name}: ${error.message}`, true);
  }
  $("other").disabled = answer === null;
  $("save").disabled = answer === null;
}

function detectFile(file) {
  const form = new FormData();
  form.append("file", file);
  return detect(() => fetch("detect?overview=true", { method: "POST", body: form }), file.name);
}

function detectPath(path) {
  return detect(() => fetch("detect/path?overview=true", {
    method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify({ path }),
  }), path);
}

async function show(content) {
  const picture = new Image();
  picture.src = `data:image/png;base64,${content.overview}`;
  await picture.decode();
  overview = picture;
  answer = content;
  chosen = -1;
  $("drop").hidden = true;
  $("drop").style.display = "none";
  fit();
}

function fit() {
  const { width, height } = answer.image;
  const zoom = Math.min(canvas.clientWidth / width, canvas.clientHeight / height);
  view = { zoom, x: (width - canvas.clientWidth / zoom) / 2, y: (height - canvas.clientHeight / zoom) / 2 };
  redraw();
}

const box = ({ properties: p }) => [p.left_px, p.top_px, p.right_px, p.bottom_px];
const kept = () => answer === null ? [] : answer.features.filter((each) => each.properties.score >= Number($("score").value));
const colour = (feature) => COLOURS[answer.classes.indexOf(feature.properties.class) % COLOURS.length];

function redraw() {
  $("least").textContent = Number($("score").value).toFixed(2);
  const ratio = window.devicePixelRatio || 1;
  canvas.width = canvas.clientWidth * ratio;
  canvas.height = canvas.clientHeight * ratio;
  list();
  if (answer === null) return;
  pen.setTransform(ratio * view.zoom, 0, 0, ratio * view.zoom, -view.x * view.zoom * ratio, -view.y * view.zoom * ratio);
  pen.imageSmoothingEnabled = view.zoom < 1;
  pen.drawImage(overview, 0, 0, answer.image.width, answer.image.height);
  for (const feature of kept()) {
    const [left, top, right, bottom] = box(feature);
    const isChosen = answer.features.indexOf(feature) === chosen;
    const grow = isChosen ? 4 / view.zoom : 1 / view.zoom;
    pen.strokeStyle = isChosen ? "#ffffff" : colour(feature);
    pen.lineWidth = (isChosen ? 2.5 : 1.5) / view.zoom;
    pen.strokeRect(left - grow, top - grow, right - left + 2 * grow, bottom - top + 2 * grow);
  }
}

function list() {
  const rows = kept().slice(0, 500).map((feature) => {
    const { score, length_m, lon, lat } = feature.properties;
    const [left, top, right, bottom] = box(feature);
    const row = document.createElement("li");
    const button = document.createElement("button");
    const small = document.createElement("small");
    const size = length_m == null ? `${(right - left).toFixed(0)} × ${(bottom - top).toFixed(0)} px` : `${length_m.toFixed(0)} m`;
    const place = lon == null ? `column ${left.toFixed(0)}, row ${top.toFixed(0)}` : `${lat.toFixed(5)}, ${lon.toFixed(5)}`;
    button.textContent = `${feature.properties.class} ${score.toFixed(2)}`;
    small.textContent = `${size} · ${place}`;
    button.append(small);
    button.classList.toggle("chosen", answer.features.indexOf(feature) === chosen);
    button.onclick = () => { choose(feature); };
    row.append(button);
    return row;
  });
  $("list").replaceChildren(...rows);
  $("list").dataset.count = kept().length;
}

function choose(feature) {
  chosen = answer.features.indexOf(feature);
  const [left, top, right, bottom] = box(feature);
  view.zoom = Math.max(view.zoom, Math.min(8, 80 / Math.max(right - left, bottom - top)));
  view.x = (left + right) / 2 - canvas.clientWidth / view.zoom / 2;
  view.y = (top + bottom) / 2 - canvas.clientHeight / view.zoom / 2;
  redraw();
}

const pixel = (event) => ({ x: view.x + event.offsetX / view.zoom, y: view.y + event.offsetY / view.zoom });

canvas.addEventListener("wheel", (event) => {
  if (answer === null) return;
  event.preventDefault();
  const at = pixel(event);
  view.zoom = Math.min(40, Math.max(0.005, view.zoom * Math.exp(-event.deltaY * 0.0015)));
  view.x = at.x - event.offsetX / view.zoom;
  view.y = at.y - event.offsetY / view.zoom;
  redraw();
}, { passive: false });

let grip = null;
canvas.addEventListener("pointerdown", (event) => {
  grip = { at: pixel(event), moved: false };
  canvas.setPointerCapture(event.pointerId);
});
canvas.addEventListener("pointermove", (event) => {
  if (answer === null) return;
  const at = pixel(event);
  $("where").hidden = false;
  $("where").textContent = `column ${at.x.toFixed(0)}, row ${at.y.toFixed(0)}`;
  if (grip === null) return;
  grip.moved ||= Math.hypot(at.x - grip.at.x, at.y - grip.at.y) * view.zoom > 3;
  view.x += grip.at.x - at.x;
  view.y += grip.at.y - at.y;
  redraw();
});
canvas.addEventListener("pointerup", (event) => {
  const at = pixel(event);
  if (grip !== null && !grip.moved) {
    const hit = kept().find((feature) => {
      const [left, top, right, bottom] = box(feature);
      return at.x >= left - 2 && at.x <= right + 2 && at.y >= top - 2 && at.y <= bottom + 2;
    });
    chosen = hit ? answer.features.indexOf(hit) : -1;
    redraw();
  }
  grip = null;
});

for (const kind of ["dragover", "dragleave", "drop"]) {
  document.addEventListener(kind, (event) => {
    event.preventDefault();
    document.body.classList.toggle("over", kind === "dragover");
    if (kind === "drop" && event.dataTransfer.files.length) detectFile(event.dataTransfer.files[0]);
  });
}
$("file").addEventListener("change", (event) => { if (event.target.files.length) detectFile(event.target.files[0]); });
$("drop").addEventListener("keydown", (event) => { if (event.key === "Enter" || event.key === " ") $("file").click(); });
$("score").addEventListener("input", redraw);
$("other").addEventListener("click", () => { $("file").value = ""; $("file").click(); });
$("save").addEventListener("click", () => {
  const { overview: _, ...collection } = answer;
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([JSON.stringify({ ...collection, features: kept() })], { type: "application/geo+json" }));
  link.download = "detections.geojson";
  link.click();
  URL.revokeObjectURL(link.href);
});
window.addEventListener("resize", redraw);

const wanted = new URLSearchParams(location.search).get("path");
if (wanted) detectPath(wanted);
