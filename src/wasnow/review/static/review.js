import { byId, linkedMaps, option, request, say, whenLoaded } from "./common.js";

const project = await request("/api/project");
const state = { rows: [], total: 0, place: -1, mode: "side", drawing: null, points: [], undo: [], merging: new Set(), loading: false };
const maps = linkedMaps(project);
const colours = new Map(project.transitions.map((one) => [`${one.from}\u0000${one.to}`, one.color]));

// ---------------------------------------------------------------- the frame of the page

byId("title").textContent = `Review of ${project.title}`;
byId("candidates").textContent = project.candidates;
byId("datebefore").textContent = `before ${project.dates[0] ?? ""}`;
byId("dateafter").textContent = `after ${project.dates[1] ?? ""}`;
byId("unit").textContent = project.metres_per_pixel === null ? "px" : "m²";
byId("status").append(option("", "all"), ...project.statuses.map((one) => option(one)));
byId("status").value = "open";
byId("reason").append(...project.reasons.map((one) => option(one)));
for (const [id, key] of [["from", "from"], ["to", "to"]]) {
  const words = [...new Set(project.transitions.map((one) => one[key]).filter((one) => one !== null))].sort();
  byId(id).append(option("", `any ${key}`), ...words.map((one) => option(one)));
}
byId("newfrom").append(...project.classes.map((one) => option(one)));
byId("newto").append(...project.classes.map((one) => option(one)));
byId("relabel").disabled = project.classes.length === 0;
byId("reviewer").value = localStorage.getItem("wasnow-reviewer") ?? "";
byId("reviewer").addEventListener("change", () => localStorage.setItem("wasnow-reviewer", byId("reviewer").value));
for (const [date, text] of Object.entries(project.problems)) say(`The image ${date} cannot be shown: ${text}`);

const current = () => state.rows[state.place];
const size = (row) => (project.metres_per_pixel === null ? `${row.area} px` : row.area >= 1e4 ? `${(row.area / 1e4).toFixed(2)} ha` : `${Math.round(row.area)} m²`);
const name = (row) => (row.from === null ? row.to : `${row.from} → ${row.to}`);

function showProgress(progress) {
  const done = progress.total - progress.counts.open;
  byId("progress").max = Math.max(1, progress.total);
  byId("progress").value = done;
  byId("counts").textContent = `${done} of ${progress.total}: ${progress.counts.accepted} accepted, ${progress.counts.rejected} rejected, ${progress.counts.unsure} unsure`;
}

// ---------------------------------------------------------------- the list

function filter() {
  const given = new URLSearchParams();
  for (const [key, id] of [["status", "status"], ["from", "from"], ["to", "to"], ["sort", "sort"], ["min_area", "min"], ["max_area", "max"]]) {
    if (byId(id).value !== "") given.set(key, byId(id).value);
  }
  return given;
}

async function load({ more = false, keep } = {}) {
  if (state.loading) return;
  state.loading = true;
  try {
    const given = filter();
    given.set("offset", more ? state.rows.length : 0);
    const found = await request(`/api/polygons?${given}`);
    state.rows = more ? state.rows.concat(found.rows) : found.rows;
    state.total = found.total;
    showProgress(found.progress);
    drawList();
    if (!more) await select(Math.max(0, state.rows.findIndex((row) => row.fid === keep)));
  } catch (error) { say(error.message); } finally { state.loading = false; }
}

function drawList() {
  const items = state.rows.map((row, place) => {
    const item = document.createElement("li");
    const mark = document.createElement("i");
    mark.style.background = colours.get(`${row.from}\u0000${row.to}`) ?? "#d62760";
    const text = document.createElement("span");
    text.textContent = name(row);
    const note = document.createElement("span");
    note.className = "status";
    note.textContent = `${state.merging.has(row.fid) ? "✓ " : ""}${size(row)} · ${Math.round(row.p * 100)} % · ${row.status}`;
    item.append(mark, text, note);
    item.dataset.fid = row.fid;
    item.setAttribute("aria-current", String(place === state.place));
    item.addEventListener("click", (event) => {
      if (event.ctrlKey || event.metaKey) {
        if (!state.merging.delete(row.fid)) state.merging.add(row.fid);
        drawList();
      } else select(place);
    });
    return item;
  });
  byId("list").replaceChildren(...items);
}

byId("list").addEventListener("scroll", () => {
  const list = byId("list");
  if (list.scrollTop + list.clientHeight > list.scrollHeight - 200 && state.rows.length < state.total) load({ more: true });
});

async function select(place) {
  if (!state.rows.length) {
    state.place = -1;
    byId("what").textContent = "No polygon matches the filter";
    byId("facts").textContent = "";
    await showOutlines();
    return;
  }
  state.place = Math.min(Math.max(place, 0), state.rows.length - 1);
  const row = current();
  byId("what").textContent = name(row);
  const who = row.reviewer ? ` · ${row.status} by ${row.reviewer}` : ` · ${row.status}`;
  byId("facts").textContent = `number ${row.id} · ${size(row)} · change probability ${row.p.toFixed(2)}${who}${row.reason ? ` · ${row.reason}` : ""}`;
  if (row.from !== null) byId("newfrom").value = row.from;
  byId("newto").value = row.to;
  for (const item of byId("list").children) item.setAttribute("aria-current", String(Number(item.dataset.fid) === row.fid));
  byId("list").children[state.place]?.scrollIntoView({ block: "nearest" });
  const [west, south, east, north] = row.frame;
  const wide = Math.max(east - west, 60 * 360 / (256 * 2 ** project.zoom)) * 0.6;
  const tall = Math.max(north - south, 60 * 360 / (256 * 2 ** project.zoom)) * 0.6;
  const lat = (value) => Math.max(-85, Math.min(85, value));
  maps.before.fitBounds([[Math.max(-180, west - wide), lat(south - tall)], [Math.min(180, east + wide), lat(north + tall)]], { animate: false, padding: 10, maxZoom: project.zoom + 2 });
  await showOutlines();
  if (state.place > state.rows.length - 20 && state.rows.length < state.total) load({ more: true });
}

// ---------------------------------------------------------------- outlines on the maps

const empty = { type: "FeatureCollection", features: [] };

async function addLayers(map) {
  await whenLoaded(map);
  map.addSource("outlines", { type: "geojson", data: empty });
  map.addSource("sketch", { type: "geojson", data: empty });
  const chosen = ["==", ["get", "fid"], ["literal", -1]];
  map.addLayer({ id: "others", type: "line", source: "outlines", paint: { "line-color": "#ffffff", "line-opacity": 0.55, "line-width": 1 } });
  map.addLayer({ id: "halo", type: "line", source: "outlines", filter: chosen, paint: { "line-color": "#000000", "line-width": 4, "line-opacity": 0.6 } });
  map.addLayer({ id: "chosen", type: "line", source: "outlines", filter: chosen, paint: { "line-color": "#ffd54a", "line-width": 2 } });
  map.addLayer({ id: "sketch", type: "line", source: "sketch", paint: { "line-color": "#4ad9ff", "line-width": 2 } });
  map.on("click", (event) => clicked(map, event));
}

let asked = 0;
async function showOutlines() {
  const number = ++asked;
  const frame = maps.before.getBounds();
  const query = new URLSearchParams({ west: frame.getWest(), south: frame.getSouth(), east: frame.getEast(), north: frame.getNorth() });
  let found;
  try { found = await request(`/api/outlines?${query}`); } catch (error) { say(error.message); return; }
  if (number !== asked) return;
  for (const map of Object.values(maps)) {
    const source = map.getSource("outlines");
    if (!source) continue;
    source.setData(found);
    const chosen = ["==", ["get", "fid"], current()?.fid ?? -1];
    map.setFilter("halo", chosen);
    map.setFilter("chosen", chosen);
  }
  document.body.dataset.shown = String(current()?.fid ?? "");
}

async function clicked(map, event) {
  if (state.drawing) {
    state.points.push([event.lngLat.lng, event.lngLat.lat]);
    sketch();
    return;
  }
  const query = new URLSearchParams({ west: event.lngLat.lng, east: event.lngLat.lng, south: event.lngLat.lat, north: event.lngLat.lat });
  const found = await request(`/api/outlines?${query}`);
  const place = state.rows.findIndex((row) => found.features.some((one) => one.id === row.fid));
  if (place >= 0) select(place);
}

function sketch() {
  const line = { type: "Feature", properties: {}, geometry: { type: "LineString", coordinates: state.points } };
  for (const map of Object.values(maps)) map.getSource("sketch")?.setData(state.points.length > 1 ? line : empty);
}

function draw(kind) {
  if (!current()) return;
  state.drawing = state.drawing === kind ? null : kind;
  state.points = [];
  sketch();
  byId("finish").hidden = !state.drawing;
  byId("hint").textContent = state.drawing === "redraw" ? "Click the corners of the new outline, then Enter." : state.drawing === "split" ? "Click a line across the polygon, then Enter." : "";
}

async function finish() {
  const row = current();
  if (!state.drawing || !row) return;
  const body = { fid: row.fid, reviewer: byId("reviewer").value, points: state.points };
  if (state.drawing === "redraw") body.seen = row.reviewed_at ?? "";
  const path = `/api/${state.drawing}`;
  draw(state.drawing);
  await act(async () => { await request(path, body); await load({ keep: row.fid }); });
}

// ---------------------------------------------------------------- decisions

// One action after the other: a key pressed while the last decision is being saved applies to the next polygon.
let last = Promise.resolve();
function act(work) {
  last = last.then(async () => {
    try { await work(); } catch (error) {
      say(error.message);
      if (error.status === 409) await load({ keep: current()?.fid });
    }
  });
  return last;
}

const decide = (status, extra = {}) => act(async () => {
  const row = current();
  if (!row) return;
  const body = { fid: row.fid, status, reviewer: byId("reviewer").value, seen: row.reviewed_at ?? "", ...extra };
  if (status === "rejected") body.reason = byId("other").value.trim() || byId("reason").value;
  const answer = await request("/api/decide", body);
  state.undo.push(row);
  byId("other").value = "";
  showProgress(answer.progress);
  state.rows[state.place] = answer.row;
  const next = state.rows.findIndex((one, place) => place > state.place && one.status === "open");
  drawList();
  select(next >= 0 ? next : state.place + 1);
});

const undo = () => act(async () => {
  const row = state.undo.pop();
  if (!row) { say("Nothing to undo", true); return; }
  const now = (await request(`/api/polygon/${row.fid}`)).row;
  const body = { fid: row.fid, status: row.status, reason: row.reason, reviewer: byId("reviewer").value, seen: now.reviewed_at ?? "" };
  if (row.from !== now.from) body.before = row.from;
  if (row.to !== now.to) body.after = row.to;
  const answer = await request("/api/decide", body);
  showProgress(answer.progress);
  const place = state.rows.findIndex((one) => one.fid === row.fid);
  if (place >= 0) { state.rows[place] = answer.row; drawList(); await select(place); } else await load({ keep: row.fid });
  say("Undone", true);
});

const relabel = () => decide("accepted", { before: byId("newfrom").value, after: byId("newto").value, reason: "classes corrected" });

const merge = () => act(async () => {
  const fids = [...state.merging];
  const answer = await request("/api/merge", { fids, reviewer: byId("reviewer").value });
  state.merging.clear();
  await load({ keep: answer.row.fid });
});

// ---------------------------------------------------------------- views

let blinking;
function view(mode) {
  state.mode = mode;
  clearInterval(blinking);
  const frame = byId("maps");
  frame.className = mode === "side" ? "" : `single ${mode}`;
  frame.style.cssText = "";
  for (const id of ["side", "swipe", "blink", "overlay"]) byId(id).setAttribute("aria-pressed", String(id === mode));
  byId("amount").disabled = mode !== "swipe" && mode !== "overlay";
  if (mode === "blink") {
    let shown = true;
    blinking = setInterval(() => { shown = !shown; frame.style.setProperty("--shown", shown ? "visible" : "hidden"); }, 700);
  }
  amount();
  for (const map of Object.values(maps)) map.resize();
}

function amount() {
  const share = byId("amount").value;
  const frame = byId("maps");
  frame.style.setProperty("--clip", state.mode === "swipe" ? `inset(0 0 0 ${share}%)` : "none");
  frame.style.setProperty("--opacity", state.mode === "overlay" ? share / 100 : 1);
}

let outlinesShown = true;
function toggleOutlines() {
  outlinesShown = !outlinesShown;
  byId("outlines").setAttribute("aria-pressed", String(outlinesShown));
  for (const map of Object.values(maps)) for (const id of ["others", "halo", "chosen"]) map.setLayoutProperty(id, "visibility", outlinesShown ? "visible" : "none");
}

// ---------------------------------------------------------------- wiring

const actions = {
  accept: () => decide("accepted"), reject: () => decide("rejected"), unsure: () => decide("unsure"), reopen: () => decide("open"), undo, relabel,
  draw: () => draw("redraw"), cut: () => draw("split"), join: merge, finish, next: () => select(state.place + 1), previous: () => select(state.place - 1),
  side: () => view("side"), swipe: () => view("swipe"), blink: () => view("blink"), overlay: () => view("overlay"), outlines: toggleOutlines,
};
for (const [id, action] of Object.entries(actions)) byId(id).addEventListener("click", action);
const keys = { a: "accept", r: "reject", u: "unsure", o: "reopen", z: "undo", d: "draw", x: "cut", enter: "finish", arrowright: "next", arrowleft: "previous", 1: "side", 2: "swipe", 3: "blink", 4: "overlay", h: "outlines" };
document.addEventListener("keydown", (event) => {
  if (event.target.matches("input, select, textarea") || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "Escape" && state.drawing) { draw(state.drawing); return; }
  const action = keys[event.key.toLowerCase()];
  if (action) { event.preventDefault(); actions[action](); }
});
byId("amount").addEventListener("input", amount);
for (const id of ["status", "from", "to", "sort", "min", "max"]) byId(id).addEventListener("change", () => load());
maps.before.on("moveend", () => showOutlines());

await Promise.all(Object.values(maps).map(addLayers));
await load();
document.body.dataset.ready = "yes";
