// The viewer: shows the four pictures on top of each other; without a script they are side by side. It reads numbers
// from data attributes only and makes no requests.
"use strict";
(() => {
  const viewer = document.getElementById("viewer");
  const frame = viewer.querySelector(".frame");
  const stage = viewer.querySelector(".stage");
  const spot = stage.querySelector(".spot");
  const layers = Object.fromEntries(["before", "after", "change", "confidence"].map((name) => [name, stage.querySelector(".layer." + name)]));
  const shown = { before: ["before"], after: ["after"], swipe: ["before", "after"], change: ["after", "change"], confidence: ["confidence"] };
  const zooms = [1, 1.5, 2, 3, 4, 6, 8];
  const swipe = document.getElementById("swipe");
  const opacity = document.getElementById("opacity");
  const blink = viewer.querySelector('[data-tool="blink"]');
  let mode = "change";
  let zoom = 0;
  let timer = null;

  function show(name) {
    mode = name;
    viewer.dataset.mode = name;
    for (const [key, layer] of Object.entries(layers)) layer.classList.toggle("on", shown[name].includes(key));
    for (const button of viewer.querySelectorAll("[data-mode]")) button.setAttribute("aria-pressed", String(button.dataset.mode === name));
    for (const label of viewer.querySelectorAll("[data-for]")) label.hidden = label.dataset.for !== name;
    stage.querySelector(".handle").hidden = name !== "swipe";
    const caption = (key) => layers[key].querySelector("figcaption").textContent;
    viewer.querySelector(".caption").textContent = name === "swipe" ? caption("before") + " | " + caption("after") : caption(name);
  }

  function stopBlinking() {
    clearInterval(timer);
    timer = null;
    blink.setAttribute("aria-pressed", "false");
  }

  function toggleBlinking() {
    if (timer !== null) return stopBlinking();
    blink.setAttribute("aria-pressed", "true");
    show("before");
    timer = setInterval(() => show(mode === "before" ? "after" : "before"), 800);
  }

  function choose(name) {
    stopBlinking();
    show(name);
  }

  function setZoom(level, left, top) {
    const x = left ?? (frame.scrollLeft + frame.clientWidth / 2) / stage.offsetWidth;
    const y = top ?? (frame.scrollTop + frame.clientHeight / 2) / stage.offsetHeight;
    zoom = Math.max(0, Math.min(zooms.length - 1, level));
    stage.style.setProperty("--zoom", zooms[zoom]);
    viewer.querySelector(".zoom").textContent = zooms[zoom] + "×";
    frame.scrollTo(x * stage.offsetWidth - frame.clientWidth / 2, y * stage.offsetHeight - frame.clientHeight / 2);
  }

  function setSwipe(percent) {
    swipe.value = percent;
    stage.style.setProperty("--swipe", swipe.value + "%");
  }

  function drag(event) {
    if (mode !== "swipe" || (event.type === "pointermove" && event.buttons === 0)) return;
    const box = stage.getBoundingClientRect();
    setSwipe((100 * (event.clientX - box.left)) / box.width);
  }

  viewer.classList.add("live");
  for (const part of document.querySelectorAll(".viewer .bar, button.show")) part.hidden = false;
  for (const button of viewer.querySelectorAll("[data-mode]")) button.addEventListener("click", () => choose(button.dataset.mode));
  blink.addEventListener("click", toggleBlinking);
  viewer.querySelector('[data-tool="in"]').addEventListener("click", () => setZoom(zoom + 1));
  viewer.querySelector('[data-tool="out"]').addEventListener("click", () => setZoom(zoom - 1));
  swipe.addEventListener("input", () => setSwipe(swipe.value));
  opacity.addEventListener("input", () => stage.style.setProperty("--opacity", opacity.value / 100));
  stage.addEventListener("pointerdown", drag);
  stage.addEventListener("pointermove", drag);
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("input, summary")) return;
    const name = Object.keys(shown)[Number(event.key) - 1];
    if (name) choose(name);
    else if (event.key === "b") toggleBlinking();
    else if (event.key === "+") setZoom(zoom + 1);
    else if (event.key === "-") setZoom(zoom - 1);
  });
  for (const button of document.querySelectorAll("button.show")) {
    button.addEventListener("click", () => {
      const left = Number(button.dataset.left);
      const top = Number(button.dataset.top);
      spot.style.left = left + "%";
      spot.style.top = top + "%";
      spot.hidden = false;
      if (!["change", "swipe"].includes(mode) || timer !== null) choose("change");
      viewer.scrollIntoView({ block: "nearest" });
      setZoom(Math.max(zoom, 2), left / 100, top / 100);
    });
  }
  show(mode);
})();
