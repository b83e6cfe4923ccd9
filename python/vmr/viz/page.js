"use strict";
(() => {
  const byId = (id) => document.getElementById(id);
  const read = (id) => JSON.parse(byId(id).textContent);
  const run = read("results"); // as results.json
  const page = read("page"); // addresses and commands by video, key frames by result
  const video = byId("video");
  const LANES = 6;

  let chosen = -1; // place of the result shown
  let playing = -1; // place of the moment shown or played
  let stopAt = null; // s, where that moment ends while it plays
  let at = 0; // s, the position
  let source = ""; // name of the video loaded
  let broken = false; // it cannot be played
  let frame = 0; // the animation frame asked for, of which one is enough

  // ---- small things ----------------------------------------------------------------------------------

  function make(tag, attributes = {}, ...children) {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    element.append(...children);
    return element;
  }

  function drawn(tag, attributes) {
    const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    return element;
  }

  function clock(seconds, digits = 1) {
    const unit = 10 ** digits;
    const units = Math.round(seconds * unit);
    const rest = ((units % (60 * unit)) / unit).toFixed(digits);
    const minutes = Math.floor(units / (60 * unit));
    const padded = rest.padStart(digits ? 3 + digits : 2, "0");
    if (minutes < 60) return `${minutes}:${padded}`;
    return `${Math.floor(minutes / 60)}:${String(minutes % 60).padStart(2, "0")}:${padded}`;
  }

  const count = (number, one, several) => `${number} ${number === 1 ? one : several}`;
  const span = (moment) => `${clock(moment.start)} – ${clock(moment.end)}`;
  const result = () => run.results[chosen];
  const clamp = (value, low, high) => Math.min(Math.max(value, low), high);
  const length = () => Math.max(result().duration, 1e-3);
  const percent = (seconds) => `${clamp((100 * seconds) / length(), 0, 100)}%`;

  // ---- look ------------------------------------------------------------------------------------------

  const darkSystem = window.matchMedia("(prefers-color-scheme: dark)");

  function remembered() {
    try {
      return localStorage.getItem("vmr-theme");
    } catch {
      return null; // storage is not allowed
    }
  }

  function setTheme(theme) {
    document.documentElement.dataset.theme = theme;
    const other = theme === "dark" ? "light" : "dark";
    byId("theme").textContent = other === "dark" ? "Dark" : "Light";
    byId("theme").setAttribute("aria-label", `Change to the ${other} look`);
  }

  const systemTheme = () => remembered() ?? (darkSystem.matches ? "dark" : "light");
  setTheme(systemTheme());
  darkSystem.addEventListener("change", () => setTheme(systemTheme()));
  byId("theme").addEventListener("click", () => {
    const theme = document.documentElement.dataset.theme === "dark" ? "light" : "dark";
    setTheme(theme);
    try {
      localStorage.setItem("vmr-theme", theme);
    } catch {
      // it is forgotten with the page
    }
  });

  // ---- list of queries ---------------------------------------------------------------------------------

  const names = [...new Set(run.results.map((one) => one.video))];
  const groups = names.map((name) => {
    const heading = make("h2", { title: name }, page.videos[name].title);
    const rows = [];
    run.results.forEach((one, place) => {
      if (one.video !== name) return;
      const best = one.moments[0];
      const found = best ? `${count(one.moments.length, "moment", "moments")}, best ${span(best)}` : "no moment found";
      const button = make("button", { type: "button" });
      button.append(make("span", { dir: "auto" }, one.query), make("small", {}, found));
      button.addEventListener("click", () => choose(place));
      rows.push({ place, button, text: `${one.query}\n${name}`.toLowerCase() });
    });
    byId("list").append(heading, ...rows.map((row) => row.button));
    return { heading, rows };
  });
  const rows = groups.flatMap((group) => group.rows);
  const visible = () => rows.filter((row) => !row.button.hidden);

  function filter() {
    const words = byId("filter").value.toLowerCase().split(/\s+/).filter(Boolean);
    for (const group of groups) {
      for (const row of group.rows) row.button.hidden = !words.every((word) => row.text.includes(word));
      group.heading.hidden = group.rows.every((row) => row.button.hidden);
    }
    const left = visible().length;
    byId("count").textContent = words.length ? `${left} of ${count(rows.length, "query", "queries")}` : "";
  }
  byId("filter").addEventListener("input", filter);

  function step(by) {
    const shown = visible();
    const place = shown.findIndex((row) => row.place === chosen);
    const next = shown[place < 0 ? 0 : clamp(place + by, 0, shown.length - 1)];
    if (next && next.place !== chosen) choose(next.place);
  }

  // ---- one query -----------------------------------------------------------------------------------------

  function choose(place) {
    chosen = place;
    for (const row of rows) {
      if (row.place === place) row.button.setAttribute("aria-current", "true");
      else row.button.removeAttribute("aria-current");
      if (row.place === place) row.button.scrollIntoView({ block: "nearest" });
    }
    const { query, video: name, duration, moments } = result();
    document.title = `${query} – vmr`;
    byId("query").textContent = query;
    byId("where").textContent = `${page.videos[name].title}, ${clock(duration)}`;
    byId("where").title = name;
    video.pause();
    load(name);
    drawCurve();
    drawLanes();
    drawAxis();
    listMoments();
    explain();
    mark(-1);
    showStill(0);
    seek(moments.length ? moments[0].start : 0);
  }

  function listMoments() {
    const { moments } = result();
    byId("none").hidden = moments.length > 0;
    byId("moments").style.setProperty("--shape", clamp(page.videos[result().video].shape, 9 / 16, 21 / 9));
    byId("moments").replaceChildren(...moments.map((moment, place) => {
      const picture = page.keys[chosen][place].picture;
      const thumb = make("span", { class: "thumb" });
      thumb.append(picture ? make("img", { src: picture, alt: "" }) : "no picture");
      const facts = make("span", { class: "facts" },
        make("span", { class: "rank" }, String(place + 1)),
        make("span", {}, span(moment)),
        make("span", { class: "value" }, `score ${moment.score.toFixed(3)}`));
      const button = make("button", { type: "button", "aria-label": label(moment, place) }, thumb, facts);
      button.addEventListener("click", () => playMoment(place));
      return make("li", {}, button);
    }));
  }

  const label = (moment, place) =>
    `Play moment ${place + 1}, ${clock(moment.start)} to ${clock(moment.end)}, score ${moment.score.toFixed(3)}`;

  function mark(place) {
    playing = place;
    for (const group of ["#moments button", "#lanes button", "#plot .shade"]) {
      document.querySelectorAll(group).forEach((element, number) => {
        element.classList.toggle("on", number === place);
        if (number === place) element.setAttribute("aria-current", "true");
        else element.removeAttribute("aria-current");
      });
    }
  }

  // ---- time line -------------------------------------------------------------------------------------------

  function drawCurve() {
    const { times, scores } = result().frame_scores;
    const high = scores.reduce((a, b) => Math.max(a, b), -Infinity);
    const low = scores.reduce((a, b) => Math.min(a, b), Infinity);
    const tall = high - low || 1;
    const x = (seconds) => ((1000 * seconds) / length()).toFixed(2);
    const y = (score) => (92 - (84 * (score - low)) / tall).toFixed(2);
    const svg = drawn("svg", { viewBox: "0 0 1000 100", preserveAspectRatio: "none", "aria-hidden": "true" });
    for (const moment of result().moments) {
      const width = Math.max(1, x(moment.end) - x(moment.start));
      svg.append(drawn("rect", { class: "shade", x: x(moment.start), y: 0, width, height: 100 }));
    }
    if (scores.length) {
      const line = times.map((time, place) => `${x(time)},${y(scores[place])}`).join("L");
      svg.append(
        drawn("path", { class: "under", d: `M${x(times[0])},100L${line}L${x(times[times.length - 1])},100Z` }),
        drawn("path", { class: "line", d: `M${line}` }),
      );
    }
    byId("plot").querySelector("svg")?.remove();
    byId("plot").prepend(svg);
    byId("plot").setAttribute("aria-valuemax", length().toFixed(1));
    byId("high").textContent = scores.length ? high.toFixed(2) : "";
    byId("low").textContent = scores.length ? low.toFixed(2) : "";
  }

  function drawLanes() {
    // Each moment goes into the first lane where no other covers it.
    const ends = [];
    const bars = result().moments.map((moment, place) => ({ moment, place }));
    bars.sort((a, b) => a.moment.start - b.moment.start || a.place - b.place);
    const room = (15 / byId("plot").clientWidth) * length(); // s that the shortest bar covers
    for (const bar of bars) {
      const free = ends.findIndex((end) => end <= bar.moment.start);
      bar.lane = free >= 0 ? free : Math.min(ends.length, LANES - 1);
      ends[bar.lane] = Math.max(bar.moment.end, bar.moment.start + room);
    }
    bars.sort((a, b) => a.place - b.place);
    byId("lanes").replaceChildren(...bars.map(({ moment, place, lane }) => {
      const button = make("button", { type: "button", title: span(moment), "aria-label": label(moment, place) });
      button.append(String(place + 1));
      button.style.left = percent(moment.start);
      button.style.width = percent(moment.end - moment.start);
      button.style.top = `${20 * lane}px`;
      button.addEventListener("click", () => playMoment(place));
      return button;
    }));
    byId("lanes").style.height = `${20 * ends.length}px`;
  }

  function drawAxis() {
    const most = Math.max(2, byId("plot").clientWidth / 90);
    const steps = [0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600];
    const apart = steps.find((one) => length() / one <= most) ?? 3600 * Math.ceil(length() / most / 3600);
    const ticks = [];
    for (let number = 0; number * apart <= length() * 1.0001; number += 1) {
      const tick = make("span", {}, clock(number * apart, apart < 1 ? 1 : 0));
      tick.style.left = percent(number * apart);
      ticks.push(tick);
    }
    byId("axis").replaceChildren(...ticks);
  }
  new ResizeObserver(() => {
    if (chosen < 0) return;
    drawAxis();
    drawLanes();
    mark(playing);
  }).observe(byId("plot"));

  function scoreAt(seconds) {
    const { times, scores } = result().frame_scores;
    let nearest = 0;
    let [low, high] = [0, times.length - 1];
    while (low <= high) {
      const middle = (low + high) >> 1;
      if (Math.abs(times[middle] - seconds) < Math.abs(times[nearest] - seconds)) nearest = middle;
      if (times[middle] < seconds) low = middle + 1;
      else high = middle - 1;
    }
    return scores[nearest];
  }

  function readout(seconds) {
    const score = scoreAt(seconds);
    byId("now").textContent = `${clock(seconds)} of ${clock(length())}`;
    byId("score").textContent = score === undefined ? "" : `frame score ${score.toFixed(3)}`;
  }

  function showPosition(seconds) {
    at = clamp(seconds, 0, length());
    byId("playhead").style.left = percent(at);
    byId("plot").setAttribute("aria-valuenow", at.toFixed(1));
    byId("plot").setAttribute("aria-valuetext", `${clock(at)} of ${clock(length())}`);
    readout(at);
  }

  const pointed = (event) => {
    const box = byId("plot").getBoundingClientRect();
    return clamp((event.clientX - box.left) / box.width, 0, 1) * length();
  };
  byId("plot").addEventListener("pointerdown", (event) => {
    byId("plot").setPointerCapture(event.pointerId);
    leave(pointed(event));
  });
  byId("plot").addEventListener("pointermove", (event) => {
    if (byId("plot").hasPointerCapture(event.pointerId)) leave(pointed(event));
    else readout(pointed(event));
  });
  byId("plot").addEventListener("pointerleave", () => readout(at));

  // ---- the video --------------------------------------------------------------------------------------------

  function load(name) {
    if (name === source) return;
    source = name;
    broken = false;
    byId("trouble").hidden = true;
    video.hidden = false;
    video.parentElement.classList.remove("fitted");
    video.src = page.videos[name].url;
  }

  function seek(seconds) {
    showPosition(seconds);
    if (!broken) video.currentTime = at;
  }

  function leave(seconds) {
    stopAt = null;
    mark(-1);
    seek(seconds);
  }

  function play() {
    // Refused where the file is broken, which the error event tells, or when a pause comes first.
    if (!broken) video.play().catch(() => {});
  }

  function playMoment(place) {
    const moment = result().moments[place];
    if (!moment) return;
    mark(place);
    showStill(place);
    seek(broken ? page.keys[chosen][place].time : moment.start);
    stopAt = moment.end;
    play();
  }

  function follow() {
    if (broken || chosen < 0) return;
    if (stopAt !== null && !video.seeking && video.currentTime >= stopAt) {
      video.pause();
      video.currentTime = stopAt;
      stopAt = null;
    }
    showPosition(video.currentTime);
    cancelAnimationFrame(frame);
    if (!video.paused) frame = requestAnimationFrame(follow);
  }
  video.addEventListener("play", follow);
  // Animation frames stop in a hidden tab; these go on.
  video.addEventListener("timeupdate", follow);
  video.addEventListener("seeking", () => {
    // The player's own slider left the moment.
    const moment = result().moments[playing];
    if (moment && (video.currentTime < moment.start - 0.1 || video.currentTime > moment.end + 0.1)) {
      stopAt = null;
      mark(-1);
    }
  });

  function showStill(place) {
    const picture = page.keys[chosen][place]?.picture;
    byId("still").hidden = !picture;
    if (picture) byId("still").src = picture;
  }

  function trouble(title, text, command) {
    broken = true;
    stopAt = null;
    byId("trouble-title").textContent = title;
    byId("trouble-text").textContent = text;
    byId("command").textContent = command;
    byId("command").hidden = !command;
    byId("trouble").hidden = false;
    video.hidden = true;
    showPosition(at);
  }

  function unplayable() {
    const { title, command } = page.videos[source];
    trouble(
      `This browser cannot play ${title}`,
      "Browsers play H.264 in MP4, for one. This command, run in the folder of this page, makes such a copy " +
        "to open here. If the video was moved or renamed, open it where it is now. " +
        "The rest of this page works without it.",
      command,
    );
  }

  video.addEventListener("error", () => {
    const said = video.error?.message ?? "";
    // What Chromium and Firefox say of an address where nothing is; what cannot be decoded they call otherwise.
    if (!/^MEDIA_ELEMENT_ERROR: Format error$|404|not found/i.test(said) || video.src.startsWith("blob:")) {
      unplayable();
      return;
    }
    const { title, path } = page.videos[source];
    trouble(
      `${title} was not found`,
      `Expected at ${path}, seen from the folder of this page. Put it back there, or open it ` +
        "where it is now. The rest of this page works without it.",
      "",
    );
  });
  video.addEventListener("loadedmetadata", () => {
    if (!video.videoWidth) {
      unplayable(); // it has sound, but pictures that the browser does not know
      return;
    }
    video.parentElement.style.setProperty("--ratio", `${video.videoWidth} / ${video.videoHeight}`);
    video.parentElement.classList.add("fitted");
  });
  byId("pick").addEventListener("click", () => byId("file").click());
  byId("file").addEventListener("change", () => {
    const [file] = byId("file").files;
    if (!file) return;
    page.videos[source].url = URL.createObjectURL(file);
    const name = source;
    source = "";
    load(name);
    seek(at);
    byId("file").value = "";
  });

  // ---- how it was found ------------------------------------------------------------------------------------------

  const TITLES = {
    simplified: "Query, simplified",
    detailed: "Query, detailed",
    dropped_rewrites: "Rewrites that were not used",
    query_aware_captions: "Captions made with the query in mind",
  };

  function part(value, query) {
    if (!Array.isArray(value)) return make("pre", {}, JSON.stringify(value, null, 1));
    if (value.length && value.every((one) => typeof one?.caption === "string" && typeof one.time === "number")) {
      return make("table", {}, ...value.map(({ time, caption }) => {
        const button = make("button", { type: "button", "aria-label": `Go to ${clock(time)}` }, clock(time));
        button.addEventListener("click", () => leave(time));
        return make("tr", {}, make("th", { scope: "row" }, button), make("td", { dir: "auto" }, caption));
      }));
    }
    return make("ul", {}, ...value.map((one) => {
      if (typeof one === "string") {
        return make("li", { dir: "auto" }, one, ...(one === query ? [" ", make("small", {}, "the query")] : []));
      }
      if (typeof one?.reason !== "string") return make("li", {}, JSON.stringify(one));
      return make("li", { dir: "auto" }, one.text || "(empty)", " ", make("small", {}, one.reason));
    }));
  }

  function explain() {
    const known = Object.entries(result().explanation ?? {}).filter(([, value]) => value?.length !== 0);
    byId("how").hidden = !known.length;
    byId("how-body").replaceChildren(
      ...known.flatMap(([key, value]) => [make("h3", {}, TITLES[key] ?? key), part(value, result().query)]),
    );
  }

  const row = (name, value) => make("tr", {}, make("th", { scope: "row" }, name), make("td", {}, value));
  const models = Object.entries(run.backends).map(([role, model]) => row(role, model));
  const times = Object.entries(run.timings).map(([stage, seconds]) => row(stage, `${seconds.toFixed(2)} s`));
  byId("models").hidden = !models.length && !times.length;
  if (models.length) byId("models-body").append(make("h3", {}, "Models"), make("table", {}, ...models));
  if (times.length) byId("models-body").append(make("h3", {}, "Times"), make("table", {}, ...times));

  // ---- keys ------------------------------------------------------------------------------------------------

  // After a click of the mouse, space is to pause the video and not to press the button again.
  document.addEventListener("click", (event) => {
    if (event.detail > 0) event.target.closest("button, summary")?.blur();
  });
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || chosen < 0) return;
    const target = event.target;
    if (target.id === "filter") {
      if (event.key === "Escape" || event.key === "Enter") target.blur();
      return;
    }
    if (target === video && event.key !== "j" && event.key !== "k" && !/^[1-9]$/.test(event.key)) return;
    if (event.key === " " && target.closest("button, summary")) return;
    const actions = {
      " ": () => (video.paused ? play() : video.pause()),
      ArrowLeft: () => leave(at - 1),
      ArrowRight: () => leave(at + 1),
      j: () => step(1),
      k: () => step(-1),
      "/": () => byId("filter").focus(),
    };
    const action = /^[1-9]$/.test(event.key) ? () => playMoment(Number(event.key) - 1) : actions[event.key];
    if (!action) return;
    event.preventDefault();
    action();
  });

  // ---- start -----------------------------------------------------------------------------------------------

  byId("summary").textContent =
    `${count(run.results.length, "query", "queries")} in ${count(names.length, "video", "videos")}`;
  if (run.results.length) choose(0);
  else document.querySelector("main").replaceChildren(make("p", { class: "note" }, "This run has no results."));
})();
