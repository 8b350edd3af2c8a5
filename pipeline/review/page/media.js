// Plays one clip, and fetches the next ones beforehand so that they begin at once and also
// without a connection.

const MAX_KEPT = 6;
const fetched = new Map(); // clip id -> object URL, or null while it is on its way

export async function fetchAhead(clipIds) {
  for (const id of clipIds) {
    if (fetched.has(id)) continue;
    fetched.set(id, null);
    try {
      const answer = await fetch(`/media/${id}`);
      if (!answer.ok) throw new Error(answer.status);
      fetched.set(id, URL.createObjectURL(await answer.blob()));
    } catch {
      fetched.delete(id);
    }
  }
  for (const [id, url] of fetched) {
    if (fetched.size <= MAX_KEPT) break;
    if (url && !clipIds.includes(id) && id !== player.clipId) {
      URL.revokeObjectURL(url);
      fetched.delete(id);
    }
  }
}

export const player = {
  clipId: null,
  video: null,
  fps: 24,
  speed: 1,

  show(clip, screen, onTime) {
    this.clipId = clip.clip_id;
    this.fps = clip.fps || 24;
    this.video = null;
    const source = fetched.get(clip.clip_id) || `/media/${clip.clip_id}`;
    const element = document.createElement(clip.media_kind === "image" ? "img" : "video");
    element.addEventListener("error", () => explain(clip.clip_id, screen));
    if (clip.media_kind !== "image") {
      Object.assign(element, { muted: true, loop: true, autoplay: true, playsInline: true });
      for (const name of ["timeupdate", "play", "pause", "loadeddata"]) {
        element.addEventListener(name, onTime);
      }
      element.playbackRate = element.defaultPlaybackRate = this.speed;
      this.video = element;
    }
    element.src = source;
    screen.replaceChildren(element);
  },

  toggle() {
    if (!this.video) return;
    if (this.video.paused) this.video.play();
    else this.video.pause();
  },

  step(frames) {
    if (!this.video) return;
    this.video.pause();
    const last = Math.max(0, this.video.duration - 0.5 / this.fps);
    const frame = Math.round(this.video.currentTime * this.fps - 0.5) + frames;
    this.video.currentTime = Math.min(last, Math.max(0, (frame + 0.5) / this.fps));
  },

  seek(share) {
    if (this.video?.duration) this.video.currentTime = share * this.video.duration;
  },

  faster(factor) {
    this.speed = Math.min(4, Math.max(0.125, this.speed * factor));
    if (this.video) this.video.playbackRate = this.speed;
  },
};

async function explain(clipId, screen) {
  let reason = "the browser cannot play this clip";
  try {
    const answer = await fetch(`/media/${clipId}`, { headers: { Range: "bytes=0-0" } });
    if (!answer.ok) reason = (await answer.json()).error || reason;
  } catch {
    reason = "no connection; the clip is tried again when it is back";
  }
  if (player.clipId !== clipId) return;
  const note = document.createElement("p");
  note.className = "broken";
  note.textContent = reason;
  screen.replaceChildren(note);
}
