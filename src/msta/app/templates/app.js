// Connects the player under #msta-video with the timeline below it.
(() => {
  const player = () => document.querySelector("#msta-video video");
  document.addEventListener("click", (event) => {
    const at = event.target.closest?.("[data-seek]");
    if (at && player()) player().currentTime = Number(at.dataset.seek) + 0.01;
  });
  const follow = (event) => {
    if (event.target !== player()) return;
    const line = document.querySelector(".msta-timeline");
    const now = line?.querySelector(".msta-now");
    if (!now) return;
    now.hidden = false;
    now.style.left = `${Math.min(100, (100 * event.target.currentTime) / Number(line.dataset.duration))}%`;
  };
  // A moment that was found: its number goes into a hidden field, which the server answers with a video.
  const pickMoment = (event) => {
    const figure = event.target.closest?.("[data-moment]");
    const field = document.querySelector("#msta-moment textarea, #msta-moment input");
    if (!figure || !field || (event.type === "keydown" && event.key !== "Enter")) return;
    field.value = `${figure.dataset.moment} ${Date.now()}`; // another value each time
    field.dispatchEvent(new Event("input", { bubbles: true }));
  };
  for (const name of ["click", "keydown"]) document.addEventListener(name, pickMoment);
  // Videos that a browser cannot play, such as AVI, can still be predicted: do not show an error.
  const playable = (is) => (event) => {
    if (event.target !== player()) return;
    if (!is) event.stopImmediatePropagation();
    document.querySelector("#msta-video").classList.toggle("msta-unplayable", !is);
  };
  document.addEventListener("error", playable(false), true);
  document.addEventListener("loadeddata", playable(true), true);
  for (const name of ["timeupdate", "seeking", "seeked"]) document.addEventListener(name, follow, true);
})();
// Records clips from the webcam for the class whose name is typed. They go into the field for files, as if chosen there.
(() => {
  const all = (selector) => [...document.querySelectorAll(`#msta-recorder ${selector}`)];
  const one = (selector) => all(selector)[0];
  const wait = (seconds) => new Promise((done) => setTimeout(done, 1000 * seconds));
  const say = (text) => (one("[role=status]").textContent = text);
  const count = (text) => (one(".msta-count").textContent = text);
  const name = () => document.querySelector("#msta-class textarea, #msta-class input");
  let stream = null;

  const show = (open) => {
    one("video").hidden = one("[data-do=record]").hidden = one("[data-do=close]").hidden = !open;
    one("[data-do=open]").hidden = open;
    for (const label of all("label")) label.hidden = !open;
  };
  const open = async () => {
    try {
      stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "user" }, audio: false });
    } catch (error) {
      return say(`The camera cannot be used: ${error.message}.`);
    }
    one("video").srcObject = stream;
    await one("video").play();
    show(true);
    say("Type the name of the class, then record it.");
  };
  const close = () => {
    for (const track of stream?.getTracks() ?? []) track.stop();
    stream = null;
    show(false);
    say("");
  };
  const record = (seconds) =>
    new Promise((done) => {
      const type = ["video/mp4", "video/webm"].find((each) => MediaRecorder.isTypeSupported(each));
      const recorder = new MediaRecorder(stream, { mimeType: type });
      const parts = [];
      recorder.ondataavailable = (event) => parts.push(event.data);
      recorder.onstop = () => done(new File(parts, `webcam-${Date.now()}.${type.slice(6)}`, { type }));
      recorder.start();
      setTimeout(() => recorder.stop(), 1000 * seconds);
    });
  const until = async (is) => {
    while (!is()) await wait(0.05);
  };
  const hand = async (file) => {
    const given = document.querySelector("#msta-clips input[type=file]");
    const before = document.querySelector("#msta-added").textContent;
    const files = new DataTransfer();
    files.items.add(file);
    given.files = files.files;
    given.dispatchEvent(new Event("change", { bubbles: true }));
    await until(() => document.querySelector("#msta-clips .file-preview"));
    document.querySelector("#msta-add").click();
    await until(() => document.querySelector("#msta-added").textContent !== before && !document.querySelector("#msta-clips .file-preview"));
  };
  const several = async () => {
    if (!name().value.trim()) {
      name().focus();
      return say("Type the name of the class first: the model reads it.");
    }
    const [seconds, clips] = ["seconds", "clips"].map((each) => Number(one(`[name=${each}]`).value));
    one("[data-do=record]").disabled = true;
    for (let clip = 1; clip <= clips && stream; clip++) {
      for (const left of [3, 2, 1]) {
        count(left);
        say(`Clip ${clip} of ${clips} of “${name().value}” in ${left} …`);
        await wait(0.7);
      }
      count("●");
      say(`Recording clip ${clip} of ${clips} …`);
      const file = await record(seconds);
      count("");
      await hand(file);
    }
    one("[data-do=record]").disabled = false;
    say(stream ? "Done. Type the name of the next class, or train." : "");
  };
  document.addEventListener("click", (event) => {
    const wanted = event.target.closest?.("#msta-recorder [data-do]")?.dataset.do;
    ({ open, close, record: several })[wanted]?.();
  });
})();
