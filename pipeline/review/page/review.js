// The desk's page: shows a clip, takes a judgement by keyboard, goes on to the next.

import { fetchAhead, player } from "./media.js";
import { newId, Outbox } from "./outbox.js";
import { showCaption, showClosest, showScores, showTeam } from "./panels.js";

const AHEAD = 3;
const $ = (id) => document.getElementById(id);
const NAME = /^[\p{L}\p{N}_]([\p{L}\p{N}_ .@-]{0,62}[\p{L}\p{N}_])?$/u;
const CRITERION_STEPS = { null: "poor", poor: "good", good: null };

const state = {
  setup: null,
  reviewer: localStorage.getItem("reelsieve-reviewer") || "",
  clip: null,
  draft: null,
  queue: [],
  later: new Set(), // skipped, until nothing else is left
  judged: new Map(), // clip id -> judgement of this session, sent or not
  past: [], // own judgements, oldest first, for undo
  outbox: null,
  since: 0,
};

async function ask(path) {
  const answer = await fetch(path);
  if (!answer.ok) {
    const body = await answer.json().catch(() => ({}));
    throw new Error(body.error || `answer ${answer.status}`);
  }
  return answer.json();
}

function toast(text) {
  $("toast").textContent = text;
  $("toast").classList.add("shown");
  clearTimeout(toast.timer);
  toast.timer = setTimeout(() => $("toast").classList.remove("shown"), 6000);
}

// ---- beginning

async function begin() {
  try {
    state.setup = await ask("/api/setup");
  } catch (error) {
    showEmpty("The desk does not answer", `${error.message}. Is it still running?`);
    return;
  }
  const { tier, orders, clusters } = state.setup;
  $("tier").textContent = tier;
  $("order").replaceChildren(...orders.map((name) => new Option(name, name)));
  const concepts = clusters.map((one) => new Option(`${one.cluster} (${one.num_clips})`, one.cluster));
  $("cluster").replaceChildren(new Option("all", ""), ...concepts);
  $("order").value = localStorage.getItem("reelsieve-order") || orders[0];
  buildCriteria();
  if (state.reviewer) await sitDown();
  else $("ask-name").showModal();
}

async function sitDown() {
  localStorage.setItem("reelsieve-reviewer", state.reviewer);
  $("who").textContent = state.reviewer;
  state.outbox?.close();
  state.outbox = new Outbox(state.reviewer, state.setup.tier, {
    onChange: showLine,
    onSent: showProgress,
    onRefused: reopen,
  });
  state.judged = new Map();
  state.queue = [];
  state.past = [];
  try {
    state.past = (await ask(`/api/history?reviewer=${enc(state.reviewer)}`)).reverse();
  } catch {
    // Undo then reaches back to this reload only.
  }
  for (const one of state.outbox.waiting) remember(one);
  state.outbox.flush();
  showLine();
  showProgress();
  await next();
}

const enc = encodeURIComponent;

function remember(judgement) {
  if (judgement.verdict === "withdraw") {
    state.past = state.past.filter((one) => one.judgement_id !== judgement.withdraws);
    state.judged.delete(judgement.clip_id);
  } else {
    state.judged.set(judgement.clip_id, judgement);
    state.past.push(judgement);
  }
}

// ---- the next clip

async function refill() {
  const count = AHEAD + 1 + state.outbox.waiting.length + state.later.size;
  const cluster = $("cluster").value === "" ? "" : `&cluster=${$("cluster").value}`;
  const query = `reviewer=${enc(state.reviewer)}&order=${$("order").value}${cluster}`;
  const found = await ask(`/api/queue?${query}&count=${Math.min(50, count)}`);
  const known = new Set(state.queue.map((clip) => clip.clip_id));
  const fresh = found.filter((clip) => {
    const id = clip.clip_id;
    return !known.has(id) && !state.judged.has(id) && !state.later.has(id) && id !== state.clip?.clip_id;
  });
  state.queue.push(...fresh);
}

async function next() {
  state.clip = null;
  if (state.queue.length === 0) {
    try {
      await refill();
      if (state.queue.length === 0 && state.later.size > 0) {
        state.later.clear();
        await refill();
      }
    } catch (error) {
      showEmpty("No connection", `What you judged is kept here and sent when it is back. (${error.message})`);
      setTimeout(() => state.clip || next(), 3000);
      return;
    }
  }
  const clip = state.queue.shift();
  if (!clip) {
    showEmpty("Nothing is left to judge", "Every clip of this choice has its judgements, or is on another reviewer's screen.");
    return;
  }
  show(clip);
  if (state.queue.length < AHEAD) await refill().catch(() => {});
  fetchAhead(state.queue.slice(0, AHEAD).map((one) => one.clip_id));
}

function showEmpty(title, text) {
  $("desk").hidden = true;
  $("empty").hidden = false;
  $("empty-title").textContent = title;
  $("empty-text").textContent = text;
  $("screen").replaceChildren();
}

function show(clip, draft) {
  state.clip = clip;
  state.since = performance.now();
  const kept = JSON.parse(sessionStorage.getItem(draftKey(clip.clip_id)) || "null");
  state.draft = draft || kept || emptyDraft();
  $("desk").hidden = false;
  $("empty").hidden = true;
  document.activeElement?.blur();
  player.show(clip, $("screen"), showTime);
  const rate = clip.fps ? ` at ${clip.fps.toFixed(3).replace(/\.?0+$/, "")} fps` : "";
  const concept = clip.cluster === null ? "" : ` \u00b7 concept ${clip.cluster}`;
  const place = clip.media_kind === "image" ? "" : ` from ${clip.start_s.toFixed(1)} s`;
  $("facts").textContent =
    `${clip.width} x ${clip.height}, ${clip.num_frames} frames${rate} \u00b7 ` +
    `${decodeURIComponent(clip.source)}${place}${concept} \u00b7 ${clip.clip_id.slice(0, 12)}`;
  showCaption(clip, state.draft, state.setup, changed);
  showClosest(clip);
  showScores(clip);
  showDraft();
  showTime();
}

// ---- the draft: what is said about the clip on the screen, kept over a reload

const draftKey = (clipId) => `reelsieve-draft:${state.reviewer}:${clipId}`;

function emptyDraft() {
  return { criteria: {}, subsets: [], fix: {}, note: "" };
}

function changed() {
  sessionStorage.setItem(draftKey(state.clip.clip_id), JSON.stringify(state.draft));
  showDraft();
}

function buildCriteria() {
  const buttons = state.setup.criteria.map((name, place) => {
    const button = document.createElement("button");
    button.dataset.name = name;
    button.innerHTML = `<span><kbd>${place + 1}</kbd> <span></span></span><small></small>`;
    button.querySelector("span span").textContent = name.replaceAll("_", " ");
    button.addEventListener("click", () => rate(name));
    return button;
  });
  $("criteria").replaceChildren(...buttons);
}

function rate(name) {
  const before = state.draft.criteria[name] ?? null;
  state.draft.criteria[name] = CRITERION_STEPS[before];
  changed();
}

function showDraft() {
  for (const button of $("criteria").children) {
    const rating = state.draft.criteria[button.dataset.name] ?? null;
    button.className = rating || "";
    button.querySelector("small").textContent = rating || "not judged";
  }
  $("subsets").replaceChildren(
    ...state.draft.subsets.map((name) => {
      const chip = document.createElement("button");
      chip.textContent = `${name} \u00d7`;
      chip.title = "remove";
      chip.addEventListener("click", () => {
        state.draft.subsets = state.draft.subsets.filter((one) => one !== name);
        changed();
      });
      return chip;
    }),
  );
  if (document.activeElement !== $("note")) $("note").value = state.draft.note;
  $("undo").disabled = state.past.length === 0;
}

function addSubset() {
  const name = $("subset").value.trim().toLowerCase().replace(/[\s_]+/g, "-");
  if (!name) return;
  if (!/^[a-z0-9][a-z0-9-]{0,39}$/.test(name)) {
    toast("a subset is named with letters, digits and hyphens");
    return;
  }
  $("subset").value = "";
  if (!state.draft.subsets.includes(name)) state.draft.subsets.push(name);
  changed();
}

// ---- the verdict

function judge(verdict) {
  const wrong = document.querySelector(".field.wrong");
  if (wrong && verdict === "approve") {
    toast(`mend the caption first: ${wrong.querySelector(".why").textContent}`);
    return;
  }
  const { clip, draft } = state;
  const judgement = {
    judgement_id: newId(),
    clip_id: clip.clip_id,
    reviewer: state.reviewer,
    verdict,
    criteria: draft.criteria,
    subsets: draft.subsets,
    fix: verdict === "approve" ? draft.fix : {},
    note: draft.note.trim() || null,
    seconds: Math.round(performance.now() - state.since) / 1000,
  };
  sessionStorage.removeItem(draftKey(clip.clip_id));
  seen.set(clip.clip_id, clip);
  remember(judgement);
  state.outbox.add(judgement);
  next();
}

const seen = new Map(); // clips judged since the page was opened, for undo without a connection

async function undo() {
  const last = state.past.at(-1);
  if (!last) return;
  let clip = seen.get(last.clip_id);
  try {
    clip ??= await ask(`/api/clips/${last.clip_id}?reviewer=${enc(state.reviewer)}`);
  } catch (error) {
    toast(`the clip cannot be shown: ${error.message}`);
    return;
  }
  state.past.pop();
  state.judged.delete(last.clip_id);
  if (!state.outbox.remove(last.judgement_id)) {
    state.outbox.add({
      judgement_id: newId(),
      clip_id: last.clip_id,
      reviewer: state.reviewer,
      verdict: "withdraw",
      withdraws: last.judgement_id,
    });
  }
  if (state.clip) state.queue.unshift(state.clip);
  show(clip, draftOf(last));
  showProgress();
  toast(`taken back: ${last.verdict}`);
}

function draftOf(judgement) {
  const filled = (values) =>
    Object.fromEntries(Object.entries(values || {}).filter(([, value]) => value !== null));
  return {
    criteria: filled(judgement.criteria),
    subsets: [...judgement.subsets],
    fix: filled(judgement.fix),
    note: judgement.note || "",
  };
}

async function reopen(judgement, reason) {
  toast(`not taken: ${reason}`);
  if (judgement.verdict === "withdraw") return;
  state.judged.delete(judgement.clip_id);
  state.past = state.past.filter((one) => one.judgement_id !== judgement.judgement_id);
  const clip = seen.get(judgement.clip_id);
  sessionStorage.setItem(draftKey(judgement.clip_id), JSON.stringify(draftOf(judgement)));
  if (!clip) return;
  if (state.clip) state.queue.unshift(state.clip);
  show(clip, draftOf(judgement));
}

function later() {
  state.later.add(state.clip.clip_id);
  next();
}

// ---- header

function showLine() {
  const waiting = state.outbox.waiting.length;
  const trouble = state.outbox.trouble;
  $("line").textContent = waiting === 0 ? "saved" : trouble ? `${waiting} kept here: ${trouble}` : `${waiting} on the way`;
  $("line").classList.toggle("waiting", waiting > 0);
  if (state.draft) $("undo").disabled = state.past.length === 0;
}

async function showProgress() {
  let found;
  try {
    found = await ask("/api/progress");
  } catch {
    return;
  }
  $("bar").style.width = `${(100 * found.num_done) / Math.max(1, found.num_wanted)}%`;
  $("count").textContent = `${found.num_judged} of ${found.num_clips} clips judged, ${found.num_approved} approved`;
  $("known-subsets").replaceChildren(...found.subsets.map((name) => new Option(name)));
  showTeam($("team-body"), found);
}

function showTime() {
  const video = player.video;
  $("transport").hidden = !video;
  if (!video) return;
  const total = video.duration || 0;
  $("seek").value = total ? (1000 * video.currentTime) / total : 0;
  $("clock").textContent = `${video.currentTime.toFixed(2)} / ${total.toFixed(2)} s`;
  $("play").textContent = video.paused ? "\u25b6" : "\u275a\u275a";
  $("speed").textContent = `${player.speed}x`;
}

// ---- keys

const KEYS = {
  a: () => judge("approve"),
  r: () => judge("reject"),
  u: undo,
  s: later,
  e: () => document.querySelector("#caption textarea")?.focus(),
  t: () => $("subset").focus(),
  n: () => $("note").focus(),
  " ": () => player.toggle(),
  "[": () => player.faster(0.5) ?? showTime(),
  "]": () => player.faster(2) ?? showTime(),
  arrowleft: () => player.step(-1),
  arrowright: () => player.step(1),
};
const ALWAYS = {
  u: undo,
  p: () => showProgress().then(() => $("team").showModal()),
  "?": () => $("help").showModal(),
};

function onKey(event) {
  if (document.querySelector("dialog[open]") || event.isComposing) return;
  const inField = event.target.matches("input:not([type=range]), textarea, select");
  if (inField) {
    if (event.key === "Escape") event.target.blur();
    if (event.key === "Enter" && event.target === $("subset")) addSubset();
    return;
  }
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const key = event.key.toLowerCase();
  const number = Number(key);
  const criterion = number >= 1 ? state.setup?.criteria[number - 1] : null;
  const action = ALWAYS[key] || (state.clip && (criterion ? () => rate(criterion) : KEYS[key]));
  if (!action) return;
  event.preventDefault();
  if (!event.repeat || key.startsWith("arrow")) action();
}

document.addEventListener("keydown", onKey);
$("approve").addEventListener("click", KEYS.a);
$("reject").addEventListener("click", KEYS.r);
$("undo").addEventListener("click", undo);
$("skip").addEventListener("click", later);
$("play").addEventListener("click", KEYS[" "]);
$("speed").addEventListener("click", () => {
  player.faster(player.speed >= 2 ? 0.125 : 2);
  showTime();
});
$("seek").addEventListener("input", () => player.seek($("seek").value / 1000));
$("subset").addEventListener("change", addSubset);
$("note").addEventListener("input", () => {
  state.draft.note = $("note").value;
  changed();
});
$("again").addEventListener("click", () => (state.setup ? next() : begin()));
$("show-help").addEventListener("click", ALWAYS["?"]);
$("show-team").addEventListener("click", ALWAYS.p);
$("who").addEventListener("click", () => $("ask-name").showModal());
$("ask-name").addEventListener("close", () => {
  const name = $("name").value.trim();
  if (name && !NAME.test(name)) toast("a name has letters, digits, spaces and . @ - inside");
  else if (name) state.reviewer = name;
  if (!state.reviewer) $("ask-name").showModal();
  else if (name || !state.outbox) sitDown();
});
for (const id of ["order", "cluster"]) {
  $(id).addEventListener("change", () => {
    localStorage.setItem("reelsieve-order", $("order").value);
    state.queue = [];
    state.later.clear();
    document.activeElement.blur();
    next();
  });
}

begin();
