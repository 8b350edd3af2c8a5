// Judgements on their way to the server. They lie in localStorage from the moment of the key
// press until the server has said that they are on disk, so that neither a reload nor a dropped
// connection loses one. Each carries an id of its own: sent twice, it is one judgement.

const FIRST_WAIT_MS = 500;
const LONGEST_WAIT_MS = 8000;

export class Outbox {
  // onChange(): something was added, sent or refused. onRefused(judgement, reason).
  constructor(reviewer, tier, { onChange, onRefused, onSent }) {
    this.key = `reelsieve-outbox:${tier}:${reviewer}`;
    Object.assign(this, { onChange, onRefused, onSent });
    this.waitMs = FIRST_WAIT_MS;
    this.sending = null;
    this.trouble = "";
    this.closed = false;
    window.addEventListener("online", () => this.flush());
  }

  get waiting() {
    return JSON.parse(localStorage.getItem(this.key) || "[]");
  }

  add(judgement) {
    this.store([...this.waiting, judgement]);
    this.flush();
  }

  // Take a judgement back before it was sent. False where it is sent or on its way.
  remove(id) {
    const waiting = this.waiting;
    if (this.sending === id || !waiting.some((one) => one.judgement_id === id)) return false;
    this.store(waiting.filter((one) => one.judgement_id !== id));
    return true;
  }

  close() {
    this.closed = true;
  }

  async flush() {
    if (this.sending || this.closed) return;
    clearTimeout(this.timer);
    let next;
    while ((next = this.waiting[0])) {
      this.sending = next.judgement_id;
      const outcome = await this.post(next);
      this.sending = null;
      if (outcome === "later") {
        this.timer = setTimeout(() => this.flush(), this.waitMs);
        this.waitMs = Math.min(2 * this.waitMs, LONGEST_WAIT_MS);
        this.onChange();
        return;
      }
      this.waitMs = FIRST_WAIT_MS;
      this.trouble = "";
      this.store(this.waiting.filter((one) => one.judgement_id !== next.judgement_id));
      if (outcome === "sent") this.onSent(next);
    }
  }

  async post(judgement) {
    let answer;
    try {
      answer = await fetch("/api/judgements", {
        method: "POST",
        headers: { "Content-Type": "application/json" },
        body: JSON.stringify(judgement),
      });
    } catch {
      this.trouble = "no connection";
      return "later";
    }
    if (answer.ok) return "sent";
    const reason = (await answer.json().catch(() => ({}))).error || `answer ${answer.status}`;
    if (answer.status === 422) {
      this.onRefused(judgement, reason);
      return "refused";
    }
    this.trouble = answer.status === 401 ? "the token is missing: open the link again" : reason;
    return "later";
  }

  store(waiting) {
    localStorage.setItem(this.key, JSON.stringify(waiting));
    this.onChange();
  }
}

export function newId() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}
