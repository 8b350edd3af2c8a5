// The panels beside the clip: caption, scores, and the table of who did how much.

const CHECK_AFTER_MS = 350;

export function showCaption(clip, draft, setup, changed) {
  document.getElementById("captioner").textContent = `by ${clip.caption.captioner}`;
  const fields = setup.caption_fields.map((name) => textField(name, clip, draft, changed));
  fields.push(cameraField(clip, draft, setup, changed));
  document.getElementById("caption").replaceChildren(...fields);
  const tags = [...clip.caption.source_tags, ...clip.caption.quality_tags];
  document.getElementById("tags").textContent = tags.length ? `tags: ${tags.join(", ")}` : "";
}

function textField(name, clip, draft, changed) {
  const original = clip.caption[name] || "";
  const field = label(name);
  const area = document.createElement("textarea");
  area.rows = 1;
  area.maxLength = 4000;
  area.name = name;
  area.placeholder = "not said";
  area.value = draft.fix[name] ?? original;
  const why = document.createElement("span");
  why.className = "why";
  field.append(area, why);
  const mark = () => field.classList.toggle("changed", name in draft.fix);
  mark();
  area.addEventListener("input", () => {
    const text = area.value.trim();
    if (text === "" || text === original) delete draft.fix[name];
    else draft.fix[name] = text;
    mark();
    changed();
    clearTimeout(area.timer);
    area.timer = setTimeout(() => check(field, name, draft.fix[name]), CHECK_AFTER_MS);
  });
  return field;
}

function cameraField(clip, draft, setup, changed) {
  const original = clip.caption.camera_movement || "";
  const field = label("camera_movement");
  const select = document.createElement("select");
  select.name = "camera_movement";
  select.append(new Option("not said", ""));
  select.append(...setup.camera_movements.map((name) => new Option(name.replaceAll("_", " "), name)));
  select.value = draft.fix.camera_movement ?? original;
  const mark = () => field.classList.toggle("changed", "camera_movement" in draft.fix);
  mark();
  select.addEventListener("change", () => {
    if (select.value === "" || select.value === original) {
      delete draft.fix.camera_movement;
      select.value = original;
    } else draft.fix.camera_movement = select.value;
    mark();
    changed();
  });
  field.append(select);
  return field;
}

function label(name) {
  const field = document.createElement("label");
  field.className = "field";
  field.append(name.replaceAll("_", " "));
  return field;
}

// The server knows the rules of a caption; without a connection the judgement is checked later.
async function check(field, name, text) {
  let why = "";
  if (text !== undefined) {
    try {
      const answer = await fetch("/api/check", {
        method: "POST",
        headers: { "Content-Type": "application/json" },
        body: JSON.stringify({ [name]: text }),
      });
      if (answer.status === 422) why = (await answer.json()).error;
    } catch {
      why = "";
    }
  }
  field.querySelector(".why").textContent = why;
  field.classList.toggle("wrong", why !== "");
}

export function showClosest(clip) {
  const near = clip.closest;
  document.getElementById("closest").textContent = near
    ? `closest: ${near.score} ${brief(near.value)}, ${near.side === "min" ? "at least" : "at most"} ${brief(near.limit)}`
    : "";
}

export function showScores(clip) {
  const limited = clip.scores.filter((one) => one.min !== null || one.max !== null);
  const others = clip.scores.filter((one) => !limited.includes(one));
  const rows = [...limited, ...others].flatMap((one) => {
    const name = element("span", "name", one.score);
    name.title = one.score;
    if (clip.closest && clip.closest.score === one.score) name.classList.add("near");
    return [name, element("span", "value", brief(one.value)), gauge(one)];
  });
  document.getElementById("scores").replaceChildren(...rows);
}

// Zero to twice the limit, or from one limit to the other with some room on both sides.
function gauge({ value, min, max }) {
  if (min === null && max === null) return element("span", "", "");
  const bar = element("div", "gauge", "");
  const room = min !== null && max !== null ? (max - min) / 8 : 0;
  const low = room ? min - room : 0;
  const high = room ? max + room : 2 * (min ?? max);
  const place = (number) => 100 * Math.min(1, Math.max(0, (number - low) / (high - low || 1)));
  const fill = element("i", "", "");
  fill.style.width = `${place(value)}%`;
  bar.append(fill);
  for (const limit of [min, max]) {
    if (limit === null) continue;
    const tick = element("b", "", "");
    tick.style.left = `${place(limit)}%`;
    bar.append(tick);
  }
  const low_text = min === null ? "" : `at least ${brief(min)}`;
  const high_text = max === null ? "" : `at most ${brief(max)}`;
  bar.title = [low_text, high_text].filter(Boolean).join(", ");
  return bar;
}

export function showTeam(place, progress) {
  const people = table(
    ["reviewer", "approved", "rejected"],
    progress.reviewers.map((one) => [one.reviewer, one.approve, one.reject]),
  );
  const pairs = table(
    ["question", "reviewers", "clips", "equal", "Cohen's kappa"],
    progress.agreements.map((one) => [
      one.question.replaceAll("_", " "),
      one.reviewers.join(" and "),
      one.num_clips,
      `${Math.round(100 * one.observed)} %`,
      one.kappa === null ? "undefined" : one.kappa.toFixed(2),
    ]),
  );
  const none = element("p", "quiet", "No two reviewers have judged a clip in common yet.");
  place.replaceChildren(people, progress.agreements.length ? pairs : none);
}

function table(heads, rows) {
  const found = document.createElement("table");
  const head = found.createTHead().insertRow();
  for (const text of heads) head.append(element("th", "", text));
  const body = found.createTBody();
  for (const cells of rows) {
    const row = body.insertRow();
    for (const cell of cells) row.append(element("td", "", cell));
  }
  return found;
}

function element(kind, className, text) {
  const made = document.createElement(kind);
  made.className = className;
  made.textContent = text;
  return made;
}

function brief(number) {
  return Number.isInteger(number) ? String(number) : String(Number(number.toPrecision(3)));
}
