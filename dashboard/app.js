// The pit wall: one WebSocket in, one table out. What comes from the feed is only ever set as text
// or as a checked value, never as markup.

const $ = (id) => document.getElementById(id);
const MAX_EVENTS = 60;
const CATCH_UP = 150_000; // journal entries looked through for stops and passes when the page opens
const RETRY_MS = [500, 1000, 2000, 4000, 8000];
const SILENT_S = 5; // a feed sends several records a second
const LOST_S = 30;
const QUIET_MS = 5000; // the daemon itself speaks about once a second
const calm = matchMedia("(prefers-reduced-motion: reduce)");

// ---- figures as text

const NONE = "–";
const number = (v) => typeof v === "number" && Number.isFinite(v);
const fixed = (v, digits) => (number(v) ? v.toFixed(digits) : NONE);

/** 96.412 → "1:36.412" */
function lapTime(s) {
  if (!number(s)) return NONE;
  const ms = Math.round(s * 1000);
  const rest = ((ms % 60000) / 1000).toFixed(3);
  return ms < 60000 ? rest : `${Math.floor(ms / 60000)}:${rest.padStart(6, "0")}`;
}

/** Seconds, or the feed's own "+1 LAP". */
function gap(v, leads) {
  if (leads) return "leader";
  if (number(v)) return `+${v.toFixed(3)}`;
  return typeof v === "string" ? v.replace("+", "").toLowerCase() : NONE;
}

function percent(p) {
  if (!number(p)) return NONE;
  const n = p * 100;
  if (n > 0 && n < 0.5) return "<1 %";
  if (n < 100 && n > 99.5) return ">99 %";
  return `${Math.round(n)} %`;
}

function duration(s) {
  const n = Math.floor(s);
  if (n < 60) return `${n} s`;
  return n < 3600 ? `${Math.floor(n / 60)} min ${n % 60} s` : `${Math.floor(n / 3600)} h ${Math.floor((n % 3600) / 60)} min`;
}

/** The time of day of an ISO date in UTC, as the feed writes it. */
const timeOfDay = (iso) => (typeof iso === "string" ? iso.slice(11, 19) : "");

// ---- elements

function text(node, value) {
  const string = String(value);
  if (node.textContent !== string) {
    node.textContent = string;
    return true;
  }
  return false;
}

function data(node, name, value) {
  if (value === null || value === undefined) delete node.dataset[name];
  else if (node.dataset[name] !== String(value)) node.dataset[name] = value;
}

function make(tag, classes = "", children = []) {
  const node = document.createElement(tag);
  if (classes) node.className = classes;
  node.append(...children);
  return node;
}

// ---- the tower

const STATUS = {
  on_track: "",
  in_pit: "PIT",
  retired: "OUT",
  finished: "FLAG",
  not_started: "DNS",
  disqualified: "DSQ",
};
const RATING = { purple: "best of the session", green: "own best", yellow: "" };
const rows = new Map();

function chance() {
  const meter = make("meter");
  meter.max = 1;
  const value = make("span", "value");
  return { node: make("div", "chance", [meter, value]), meter, value };
}

function makeRow() {
  const cell = (classes) => make("td", classes);
  const row = {
    node: make("tr"),
    pos: cell("num pos"),
    moved: cell("opt-2"),
    n: make("span", "n"),
    name: make("span"),
    gap: cell("num"),
    interval: cell("num opt-1"),
    last: cell("num"),
    best: cell("num opt-2"),
    sectors: [cell("num opt-2"), cell("num opt-2"), cell("num opt-2")],
    dot: make("span", "dot"),
    age: make("span"),
    stops: cell("num opt-1"),
    state: make("span"),
    penalty: make("span", "penalty"),
    p50: make("span"),
    band: make("span", "band"),
    next: cell("num"),
    finish: cell("num opt-2"),
    win: chance(),
    podium: chance(),
    pit2: cell("num pit opt-1"),
    pit5: cell("num pit"),
  };
  row.car = make("th", "car", [row.n, row.name]);
  row.car.scope = "row";
  row.next.append(row.p50, row.band);
  row.tyre = make("td", "", [make("span", "tyre", [row.dot, row.age])]);
  row.winCell = make("td", "left opt-1", [row.win.node]);
  const named = {
    position: row.pos, car: row.car, gap: row.gap, last: row.last, tyre: row.tyre,
    next: row.next, win: row.winCell, pit: row.pit5,
  };
  for (const [name, node] of Object.entries(named)) data(node, "cell", name);
  row.node.append(
    row.pos, row.moved, row.car, row.gap, row.interval, row.last, row.best, ...row.sectors,
    row.tyre, row.stops,
    make("td", "left opt-1 status", [row.state, " ", row.penalty]),
    row.next, row.finish,
    row.winCell,
    make("td", "left opt-1", [row.podium.node]),
    row.pit2, row.pit5,
  );
  return row;
}

/** `colours`: which ratings are worth a colour in this column. */
function rated(node, time, colours) {
  const had = node.textContent !== "" && node.textContent !== NONE;
  const changed = text(node, lapTime(time?.s)) && had;
  data(node, "rating", colours.includes(time?.rating) ? time.rating : null);
  node.title = RATING[time?.rating] ?? "";
  if (changed && time && !calm.matches) {
    node.classList.remove("fresh");
    void node.offsetWidth; // begins the animation anew
    node.classList.add("fresh");
  }
}

function showChance(target, p, what) {
  target.node.hidden = !number(p);
  if (!number(p)) return;
  target.meter.value = p;
  target.meter.title = `${what}: ${percent(p)}`;
  text(target.value, percent(p));
}

function showPit(node, p, pit) {
  text(node, percent(p));
  data(node, "heat", number(p) ? [0.05, 0.2, 0.5, 0.75].filter((limit) => p >= limit).length : 0);
  node.title = pit?.reason ?? "";
}

function showCar(row, car) {
  data(row.node, "status", car.status);
  const leads = car.position === 1;
  text(row.pos, car.position ?? NONE);
  const moved = number(car.grid) && number(car.position) ? car.grid - car.position : 0;
  text(row.moved, moved > 0 ? `▲${moved}` : moved < 0 ? `▼${-moved}` : "");
  row.moved.className = `opt-2 ${moved > 0 ? "up" : moved < 0 ? "down" : ""}`;
  text(row.n, car.driver_number);
  text(row.name, car.acronym || car.driver_number);
  row.car.title = [car.name, car.team].filter(Boolean).join(", ");
  if (/^[0-9a-fA-F]{6}$/.test(car.colour)) row.car.style.setProperty("--team", `#${car.colour}`);
  const runs = car.status === "on_track" || car.status === "in_pit" || car.status === "finished";
  text(row.gap, runs ? gap(car.gap, leads) : NONE);
  text(row.interval, runs && !leads ? gap(car.interval, false) : NONE);
  rated(row.last, car.last_lap, ["purple", "green"]);
  rated(row.best, car.best_lap, ["purple"]);
  row.sectors.forEach((node, i) => rated(node, car.sectors?.[i], ["purple", "green", "yellow"]));
  const compound = car.tyre?.compound ?? "UNKNOWN";
  text(row.dot, compound === "UNKNOWN" ? "?" : compound[0]);
  data(row.dot, "c", compound);
  row.dot.title = compound.toLowerCase();
  text(row.age, car.tyre?.age ?? NONE);
  text(row.stops, car.stops ?? NONE);
  text(row.state, STATUS[car.status] ?? car.status);
  text(row.penalty, car.penalty_s > 0 ? `+${car.penalty_s} s` : "");
  const next = car.next_lap;
  const drives = runs && car.status !== "finished";
  text(row.p50, drives && next ? lapTime(next.p50) : NONE);
  text(row.band, drives && next ? `±${fixed((next.p90 - next.p10) / 2, 2)}` : "");
  row.next.title = next
    ? `lap ${next.lap}, ${next.sectors_known} sectors known: 10 % below ${lapTime(next.p10)}, 90 % below ${lapTime(next.p90)}`
    : "";
  text(row.finish, runs ? fixed(car.finish?.expected, 1) : NONE);
  showChance(row.win, runs ? car.finish?.p_win : null, "win");
  showChance(row.podium, runs ? car.finish?.p_podium : null, "podium");
  const pit = drives ? car.pit : null;
  showPit(row.pit2, pit?.p_within_2, pit);
  showPit(row.pit5, pit?.p_within_5, pit);
}

/** Puts the rows in order; a car that gains a place is seen to move. */
function order(nodes) {
  const body = $("rows");
  const now = [...body.children];
  if (now.length === nodes.length && now.every((node, i) => node === nodes[i])) return;
  const before = new Map(now.map((node) => [node, node.offsetTop]));
  body.replaceChildren(...nodes);
  if (calm.matches || document.hidden) return;
  for (const node of nodes) {
    const from = before.get(node);
    const by = from === undefined ? 0 : from - node.offsetTop;
    if (by !== 0) {
      node.animate([{ transform: `translateY(${by}px)` }, { transform: "none" }], { duration: 450, easing: "ease-in-out" });
    }
  }
}

// ---- everything else

const TRACK = {
  clear: "GREEN",
  yellow: "YELLOW",
  safety_car: "SAFETY CAR",
  virtual_safety_car: "VSC",
  virtual_safety_car_ending: "VSC ENDING",
  red: "RED FLAG",
  chequered: "CHEQUERED",
};
const names = new Map();

function showState(state) {
  const session = state.session;
  const known = session.meeting || session.circuit || session.name;
  text($("meeting"), known ? [session.meeting || session.circuit, session.year].filter(Boolean).join(" ") : "Waiting for a session");
  const part = session.part ? `Q${session.part}` : "";
  text($("session"), [session.name, part, session.meeting ? session.circuit : ""].filter(Boolean).join(" · "));
  text($("lap"), state.leader_lap > 0 ? state.leader_lap : NONE);
  text($("clock"), timeOfDay(state.clock) || NONE);
  text($("track"), TRACK[state.track_status] ?? state.track_status);
  data($("track"), "status", state.track_status);
  data(document.querySelector(".bar"), "status", state.track_status);
  document.title = known ? `${TRACK[state.track_status] ?? ""} · lap ${state.leader_lap} · trackside` : "trackside";

  const w = state.weather;
  text($("temperature"), w ? `${fixed(w.air, 1)} / ${fixed(w.track, 1)} °C` : NONE);
  text($("humidity"), number(w?.humidity) ? `${Math.round(w.humidity)} %` : NONE);
  text($("wind"), number(w?.wind) ? `${fixed(w.wind, 1)} m/s ${number(w.wind_direction) ? `${w.wind_direction}°` : ""}` : NONE);
  text($("sky"), w ? (w.raining ? "RAIN" : "dry") : NONE);

  $("empty").hidden = state.rows.length > 0;
  const present = new Set();
  const nodes = state.rows.map((car) => {
    present.add(car.driver_number);
    names.set(car.driver_number, car.acronym || String(car.driver_number));
    if (!rows.has(car.driver_number)) rows.set(car.driver_number, makeRow());
    const row = rows.get(car.driver_number);
    showCar(row, car);
    return row.node;
  });
  for (const n of rows.keys()) if (!present.has(n)) rows.delete(n);
  order(nodes);
  showControl(state.race_control ?? []);
  showScores(state.scores);
}

let shownControl = "";
function showControl(messages) {
  const key = JSON.stringify(messages);
  if (key === shownControl) return;
  shownControl = key;
  const items = messages.toReversed().map((said) => line(said.date, said.lap, said.message, said.flag));
  $("control").replaceChildren(...items);
}

function line(date, lap, message, flag) {
  const time = make("time");
  time.dateTime = date ?? "";
  text(time, `${timeOfDay(date)}${number(lap) ? ` L${lap}` : ""}`);
  const words = make("span");
  text(words, message);
  const item = make("li", "", [time, words]);
  data(item, "flag", flag);
  return item;
}

const name = (n) => names.get(n) ?? (number(n) ? `car ${n}` : "?");

/** One line for a record of the journal. */
function showRecord({ seq, topic, payload: r }) {
  const words =
    topic === "v1/pit"
      ? `${name(r.driver_number)} stopped${number(r.lane_duration ?? r.pit_duration) ? `, ${fixed(r.lane_duration ?? r.pit_duration, 1)} s in the lane` : ""}`
      : topic === "v1/overtakes"
        ? `${name(r.overtaking_driver_number)} past ${name(r.overtaken_driver_number)}${number(r.position) ? ` for P${r.position}` : ""}`
        : null;
  if (words === null) return;
  const list = $("events");
  const item = line(r.date, r.lap_number, words);
  item.dataset.seq = seq;
  list.prepend(item);
  while (list.children.length > MAX_EVENTS) list.lastElementChild.remove();
}

function showHealth(health) {
  text($("version"), `trackside ${health.version}`);
  const j = health.journal;
  const free = number(j?.disk_free_bytes) ? `, ${(j.disk_free_bytes / 1e9).toFixed(1)} GB free` : "";
  text($("journal"), j ? `journal ${j.next_seq.toLocaleString("en")} records${free}` : "");
  const p = health.predictor;
  text($("model"), p?.model ? `model ${p.model} on ${p.backend}` : "");
}

// ---- scores: ours beside the baseline that the predictor grades on the same occasions

const SECTORS_KNOWN = ["at the line", "after S1", "after S2"];
const DISTANCE = ["0 %", "25 %", "50 %", "75 %"];
let shownScores = "";

/** What is graded so far: [question, [label, ours, baseline, whether lower is better, what it is]…]. */
function graded(scores) {
  const { laptime, race, pit } = scores ?? {};
  const laps = SECTORS_KNOWN.map((when, i) => [
    `mean error ${when}, s`, laptime?.clean?.[i]?.mae, laptime?.baseline?.[i]?.mae, true,
    `clean laps: ${laptime?.clean?.[i]?.count ?? 0}; baseline: the last clean lap`,
  ]);
  const first = [laptime?.clean?.[0], laptime?.baseline?.[0]];
  laps.push(
    ["within 0.2 s", first[0]?.within_200_ms, first[1]?.within_200_ms, false, "share of clean laps"],
    ["inside the 80 % band", first[0]?.coverage_80, null, false, "0.80 would be perfect"],
  );
  const order = DISTANCE.flatMap((when, i) => {
    const at = race?.at?.[i];
    const baseline = "baseline: the order on track at that moment, taken as certain";
    return [
      [`podium named at ${when}`, at?.model?.podium_overlap, at?.current_order?.podium_overlap, false, baseline],
      [`podium Brier at ${when}`, at?.model?.brier_top3, at?.current_order?.brier_top3, true, baseline],
    ];
  });
  const plan = "stops within two laps; baseline: a stop when the tyres reach the typical stint";
  const stops = [
    ["Brier", pit?.within_2?.brier, pit?.fixed_plan?.brier, true, plan],
    ["precision", pit?.within_2?.precision, pit?.fixed_plan?.precision, false, plan],
    ["recall", pit?.within_2?.recall, pit?.fixed_plan?.recall, false, plan],
  ];
  return [["Next lap", laps], ["Finishing order, after the flag", order], ["Stop within 2 laps", stops]]
    .map(([question, lines]) => [question, lines.filter(([, ours]) => number(ours))])
    .filter(([, lines]) => lines.length > 0);
}

function showScores(scores) {
  const key = JSON.stringify(scores ?? null);
  if (key === shownScores) return;
  shownScores = key;
  const groups = graded(scores);
  const lines = groups.flatMap(([question, lines]) => [scoreHead(question), ...lines.map(scoreLine)]);
  $("scores").tBodies[0].replaceChildren(...lines);
  $("no-scores").hidden = lines.length > 0;
}

function scoreHead(question) {
  const head = make("th");
  head.colSpan = 3;
  head.scope = "rowgroup";
  text(head, question);
  return make("tr", "group", [head]);
}

function scoreLine([label, ours, baseline, lower, what]) {
  const th = make("th");
  th.scope = "row";
  th.title = what;
  text(th, label);
  const compared = number(baseline) && ours !== baseline;
  const mine = make("td", `num ${compared ? ((ours < baseline) === lower ? "better" : "worse") : ""}`);
  const theirs = make("td", "num");
  text(mine, fixed(ours, 3));
  text(theirs, fixed(baseline, 3));
  return make("tr", "", [th, mine, theirs]);
}

// ---- the link

const link = { socket: null, tries: 0, heardAt: 0, recordAge: null, healthAt: 0, next: null, retryAt: 0, status: "", why: "" };

async function connect() {
  if (link.next === null) {
    // A page that has just opened looks some way back for stops and passes.
    try {
      const page = await (await fetch("api/v1/records?limit=1")).json();
      link.next = Math.max(0, page.journal_next_seq - CATCH_UP);
    } catch {
      return retry();
    }
  }
  const url = new URL("ws", document.baseURI);
  url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
  url.search = new URLSearchParams({ topics: "state,health,records", kinds: "pit,overtakes", from_seq: link.next });
  const socket = new WebSocket(url);
  link.socket = socket;
  socket.addEventListener("message", ({ data: message }) => receive(JSON.parse(message)));
  socket.addEventListener("close", retry, { once: true });
}

function retry() {
  const wait = RETRY_MS[Math.min(link.tries, RETRY_MS.length - 1)] * (0.75 + Math.random() / 2);
  link.tries += 1;
  link.socket = null;
  link.retryAt = performance.now() + wait;
  setTimeout(connect, wait);
  showLink();
}

function receive(message) {
  link.heardAt = performance.now();
  switch (message.type) {
    case "hello":
      link.tries = 0;
      if (message.reset) {
        $("events").replaceChildren();
        link.next = message.from_seq;
      }
      break;
    case "state":
      showState(message.payload);
      break;
    case "record":
      link.next = message.seq + 1;
      showRecord(message);
      break;
    case "caught_up":
      link.next = Math.max(link.next, message.next_seq);
      break;
    case "skipped":
      link.next = Math.max(link.next, message.to);
      break;
    case "health":
      link.recordAge = message.payload.last_record_age_s;
      link.healthAt = link.heardAt;
      link.status = message.payload.status;
      link.why = (message.payload.why ?? []).join("; ");
      showHealth(message.payload);
      break;
  }
  showLink();
}

/** How the data that one looks at are: alive, late, or lost. */
function showLink() {
  const now = performance.now();
  let [level, words] = ["live", "live"];
  const silent = number(link.recordAge) ? link.recordAge + (now - link.healthAt) / 1000 : 0;
  if (link.socket?.readyState !== WebSocket.OPEN) {
    const wait = Math.max(0, Math.ceil((link.retryAt - now) / 1000));
    [level, words] = link.heardAt > 0 ? ["lost", `no link for ${duration((now - link.heardAt) / 1000)}, next try in ${wait} s`] : ["wait", "connecting"];
  } else if (now - link.heardAt > QUIET_MS) {
    [level, words] = ["lost", `daemon silent for ${duration((now - link.heardAt) / 1000)}`];
  } else if (link.status === "disk_full") {
    [level, words] = ["lost", "disk full: nothing is recorded"];
  } else if (silent > SILENT_S) {
    [level, words] = [silent > LOST_S ? "lost" : "late", `feed silent for ${duration(silent)}`];
  } else if (link.status === "degraded") {
    [level, words] = ["late", "degraded"];
  } else if (link.status === "starting") {
    [level, words] = ["wait", "starting"];
  }
  const node = $("link");
  text(node, words);
  data(node, "level", level);
  node.title = link.why;
}

setInterval(showLink, 500);
connect();
