// Shared by the review and the labelling page: requests, messages, and a pair of linked maps.
import * as maplibregl from "./maplibre-gl.mjs";

export const token = new URLSearchParams(location.search).get("token") ?? "";
export const byId = (id) => document.getElementById(id);

export async function request(path, body) {
  const options = { headers: { "x-wasnow-token": token } };
  if (body !== undefined) {
    options.method = "POST";
    options.headers["content-type"] = "application/json";
    options.body = JSON.stringify(body);
  }
  let response;
  try {
    response = await fetch(path, options);
  } catch {
    throw new Error("The server does not answer. Start wasnow again and open the address that it prints; everything decided so far is saved.");
  }
  if (!response.ok) {
    let text;
    try { text = (await response.json()).error ?? response.statusText; } catch { text = response.statusText; }
    const error = new Error(text);
    error.status = response.status;
    throw error;
  }
  return response.json();
}

let hiding;
export function say(text, note = false) {
  const box = byId("message");
  box.textContent = text;
  box.classList.toggle("note", note);
  box.hidden = false;
  clearTimeout(hiding);
  hiding = setTimeout(() => { box.hidden = true; }, note ? 2500 : 8000);
}

export function option(value, text = value) {
  const one = document.createElement("option");
  one.value = value;
  one.textContent = text;
  return one;
}

function style(date, project) {
  const [[west, south], [east, north]] = project.bounds;
  const sources = {};
  const layers = [{ id: "ground", type: "background", paint: { "background-color": "#8a8f96" } }];
  if (project.images[date]) {
    sources.image = {
      type: "raster", tileSize: 256, minzoom: 0, maxzoom: project.zoom, bounds: [west, south, east, north],
      tiles: [`${location.origin}/tiles/${date}/{z}/{x}/{y}.png?token=${encodeURIComponent(token)}`],
    };
    layers.push({ id: "image", type: "raster", source: "image", paint: { "raster-resampling": "nearest", "raster-fade-duration": 0 } });
  }
  return { version: 8, sources, layers };
}

export function linkedMaps(project, { interactive = true } = {}) {
  const make = (date) => new maplibregl.Map({
    container: date, style: style(date, project), bounds: project.bounds, fitBoundsOptions: { padding: 20 },
    attributionControl: false, dragRotate: false, pitchWithRotate: false, touchPitch: false, maxPitch: 0, renderWorldCopies: false,
    maxZoom: project.zoom + 4, minZoom: -2, keyboard: false, interactive, fadeDuration: 0,
  });
  const maps = { before: make("before"), after: make("after") };
  let moving = false;
  const follow = (from, to) => from.on("move", () => {
    if (moving) return;
    moving = true;
    to.jumpTo({ center: from.getCenter(), zoom: from.getZoom() });
    moving = false;
  });
  follow(maps.before, maps.after);
  follow(maps.after, maps.before);
  return maps;
}

export const whenLoaded = (map) => new Promise((done) => (map.loaded() ? done() : map.once("load", done)));
