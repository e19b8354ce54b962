import { byId, linkedMaps, option, request, say, whenLoaded } from "./common.js";

const project = await request("/api/project");
const done = new Set(project.done);
const state = { place: 0, label: null, date: "before", scale: 2, started: 0, pixel: null };
const maps = linkedMaps(project);

byId("title").textContent = `Labels of ${project.title}`;
byId("datebefore").textContent = `before ${project.dates[0] ?? ""}`;
byId("dateafter").textContent = `after ${project.dates[1] ?? ""}`;
byId("reason").append(...project.skips.map((one) => option(one)));
byId("interpreter").value = localStorage.getItem("wasnow-reviewer") ?? "";
byId("interpreter").addEventListener("change", () => localStorage.setItem("wasnow-reviewer", byId("interpreter").value));
for (const [date, text] of Object.entries(project.problems)) say(`The image ${date} cannot be shown: ${text}`);

function choices(holder, words, chosen, choose, numbered) {
  holder.replaceChildren(...words.map((word, place) => {
    const button = document.createElement("button");
    button.textContent = word;
    button.setAttribute("role", "radio");
    button.setAttribute("aria-checked", String(word === chosen));
    button.setAttribute("aria-pressed", String(word === chosen));
    if (numbered && place < 9) {
      const key = document.createElement("kbd");
      key.textContent = place + 1;
      button.append(key);
    }
    button.addEventListener("click", () => choose(word));
    return button;
  }));
}

function show() {
  for (const date of ["before", "after"]) {
    choices(byId(`classes${date}`), project.classes, state.label[date], (word) => { state.label[date] = word; show(); }, state.date === date);
  }
  choices(byId("confidence"), project.confidences, state.label.confidence, (word) => { state.label.confidence = word; show(); }, false);
  byId("date").textContent = state.date;
  byId("progress").max = project.ids.length;
  byId("progress").value = done.size;
  byId("counts").textContent = `${done.size} of ${project.ids.length} labelled`;
  byId("what").textContent = `Point ${state.place + 1} of ${project.ids.length}${done.has(project.ids[state.place]) ? " (labelled)" : ""}`;
}

function look() {
  const [[west, south], [east, north]] = state.pixel;
  const zoom = project.zoom - 1 + state.scale;
  maps.before.jumpTo({ center: [(west + east) / 2, (south + north) / 2], zoom });
  const ring = [[west, south], [east, south], [east, north], [west, north], [west, south]];
  const frame = { type: "Feature", properties: {}, geometry: { type: "Polygon", coordinates: [ring] } };
  for (const map of Object.values(maps)) map.getSource("pixel").setData(frame);
}

let last = Promise.resolve();
const act = (work) => { last = last.then(async () => { try { await work(); } catch (error) { say(error.message); } }); return last; };

const go = (place) => act(async () => {
  state.place = Math.min(Math.max(place, 0), project.ids.length - 1);
  const found = await request(`/api/point/${project.ids[state.place]}`);
  const empty = { before: "", after: "", confidence: "high", note: "" };
  state.label = { ...empty, ...(found.label ?? {}) };
  state.pixel = found.pixel;
  state.date = "before";
  state.started = performance.now();
  byId("note").value = state.label.note;
  show();
  look();
  document.body.dataset.point = String(project.ids[state.place]);
});

const open = (from) => {
  const order = project.ids.map((_, step) => (from + step) % project.ids.length);
  const place = order.find((one) => !done.has(project.ids[one]));
  if (place === undefined) say("Every point has a label. Close the page and run wasnow areas.", true);
  else go(place);
};

const send = (fields) => act(async () => {
  const id = project.ids[state.place];
  const body = { id, note: byId("note").value, interpreter: byId("interpreter").value, seconds: (performance.now() - state.started) / 1000, ...fields };
  await request("/api/label", body);
  done.add(id);
  show();
  open(state.place + 1);
});

const save = () => send({ before: state.label.before, after: state.label.after, confidence: state.label.confidence });
const skip = () => send({ skip_reason: byId("reason").value });
const scale = (id) => {
  state.scale = { near: 2, middle: 0, far: -2 }[id];
  for (const one of ["near", "middle", "far"]) byId(one).setAttribute("aria-pressed", String(one === id));
  look();
};
const switchDate = () => { state.date = state.date === "before" ? "after" : "before"; show(); };

const actions = { save, skip, previous: () => go(state.place - 1), next: () => go(state.place + 1), open: () => open(state.place + 1), date: switchDate };
for (const [id, action] of Object.entries(actions)) byId(id).addEventListener("click", action);
for (const id of ["near", "middle", "far"]) byId(id).addEventListener("click", () => scale(id));
document.addEventListener("keydown", (event) => {
  if (event.target.matches("input, select") || event.ctrlKey || event.metaKey || event.altKey) return;
  const number = Number(event.key);
  if (number >= 1 && number <= Math.min(9, project.classes.length)) {
    state.label[state.date] = project.classes[number - 1];
    state.date = state.date === "before" ? "after" : "before";
    show();
  } else if (event.key === "Tab") switchDate();
  else if (event.key === "Enter") save();
  else if (event.key.toLowerCase() === "s") skip();
  else if (event.key.toLowerCase() === "n") open(state.place + 1);
  else if (event.key === "ArrowRight") go(state.place + 1);
  else if (event.key === "ArrowLeft") go(state.place - 1);
  else return;
  event.preventDefault();
});

await Promise.all(Object.values(maps).map(async (map) => {
  await whenLoaded(map);
  map.addSource("pixel", { type: "geojson", data: { type: "FeatureCollection", features: [] } });
  map.addLayer({ id: "halo", type: "line", source: "pixel", paint: { "line-color": "#000000", "line-width": 4, "line-opacity": 0.6 } });
  map.addLayer({ id: "pixel", type: "line", source: "pixel", paint: { "line-color": "#ffd54a", "line-width": 2 } });
}));
open(0);
await last;
document.body.dataset.ready = "yes";
