// The page: photos and webcam frames go to the worker, masks come back and are drawn over them.
const DEEP_PNG = 16; // bits a channel that a canvas would cut to 8

const part = Object.fromEntries([...document.querySelectorAll("[id]")].map((element) => [element.id, element]));
const query = new URLSearchParams(location.search);
const worker = new Worker(new URL(`worker.js?engine=${query.get("engine") ?? ""}`, import.meta.url), { type: "module" });
const waiting = new Map();
let model = null;
let camera = null;
let shown = 0; // number of the newest photo, so that an older one's mask is never drawn over it

worker.onmessage = ({ data: { id, result, error } }) => {
  const { resolve, reject } = waiting.get(id);
  waiting.delete(id);
  if (error) reject(new Error(error));
  else resolve(result);
};
worker.onerror = (event) => report(new Error(event.message || "the worker could not be started"));

function ask(task, value, transfer = []) {
  const id = crypto.randomUUID?.() ?? String(Math.random());
  return new Promise((resolve, reject) => {
    waiting.set(id, { resolve, reject });
    worker.postMessage({ id, task, value }, transfer);
  });
}

function report(error) {
  part.error.textContent = error.message;
  part.error.hidden = false;
  part.status.textContent = model ? `Ready (${model.engine})` : "No model";
}

async function start() {
  const folder = new URL(`${(query.get("model") ?? "model").replace(/\/$/, "")}/`, location.href).href;
  try {
    model = await ask("open", folder);
  } catch (error) {
    report(error);
    return;
  }
  part.status.textContent = `Ready (${model.engine})`;
  part.choose.disabled = false;
  part.webcam.disabled = !navigator.mediaDevices;
  drawLegend(null);
}

/** What a photo's header says that the browser would silently lose. */
async function checkFile(file) {
  const head = new Uint8Array(await file.slice(0, 32).arrayBuffer());
  const isPng = head[0] === 0x89 && head[1] === 0x50;
  if (isPng && head[24] === DEEP_PNG) {
    throw new Error(`${file.name}: a browser reads 8 bits a channel (got 16). Use infer.py, or convert the photo.`);
  }
}

async function showFile(file) {
  stopCamera();
  const number = ++shown;
  part.error.hidden = true;
  part.status.textContent = "Segmenting ...";
  try {
    await checkFile(file);
    const kind = { imageOrientation: "from-image", premultiplyAlpha: "none", colorSpaceConversion: "none" };
    const bitmap = await createImageBitmap(file, kind).catch(() => {
      throw new Error(`${file.name}: this browser cannot read it (expected JPEG, PNG, WebP or BMP). Convert the photo.`);
    });
    await showBitmap(bitmap, () => number === shown);
    if (number === shown) part.status.textContent = `Ready (${model.engine})`;
  } catch (error) {
    if (number === shown) report(error);
  }
}

/** Segment the bitmap and draw both, unless something newer has been chosen meanwhile. */
async function showBitmap(bitmap, isWanted) {
  const photo = document.createElement("canvas");
  [photo.width, photo.height] = [bitmap.width, bitmap.height];
  photo.getContext("2d").drawImage(bitmap, 0, 0);
  const found = await ask("segment", bitmap, [bitmap]);
  if (!isWanted()) return;
  for (const canvas of [part.photo, part.mask]) [canvas.width, canvas.height] = [found.width, found.height];
  part.photo.getContext("2d").drawImage(photo, 0, 0);
  part.mask.getContext("2d").putImageData(coloured(found), 0, 0);
  part.picture.hidden = false;
  part.hint.hidden = true;
  part.save.disabled = false;
  part.time.textContent =
    `${found.width} x ${found.height} pixels, network ${found.network.toFixed(0)} ms, ` +
    `with reading and drawing ${found.total.toFixed(0)} ms`;
  drawLegend(found.mask);
}

function coloured({ mask, width, height }) {
  const image = new ImageData(width, height);
  for (let at = 0; at < mask.length; at++) {
    const [red, green, blue] = model.palette[mask[at]];
    image.data.set([red, green, blue, 255], 4 * at);
  }
  return image;
}

/** One line a class: colour, name and, with a mask, its share of the pixels. */
function drawLegend(mask) {
  const counts = new Map();
  for (const value of mask ?? []) counts.set(value, (counts.get(value) ?? 0) + 1);
  const rows = model.classes.map((name, number) => {
    const row = document.createElement("li");
    const texts = ["", name, mask ? `${((100 * (counts.get(number) ?? 0)) / mask.length).toFixed(1)} %` : ""];
    ["colour", "name", "share"].forEach((kind, place) => {
      const cell = document.createElement("span");
      cell.className = kind;
      cell.textContent = texts[place];
      row.append(cell);
    });
    row.firstChild.style.background = `rgb(${model.palette[number].join(" ")})`;
    return row;
  });
  part.legend.replaceChildren(...rows);
}

async function startCamera() {
  part.error.hidden = true;
  const number = ++shown; // a photo, or another click, may come before the camera is there
  const video = document.createElement("video");
  try {
    video.srcObject = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
    video.muted = video.playsInline = true;
    await video.play();
  } catch (error) {
    if (number === shown) report(new Error(`the webcam cannot be opened (${error.message}). Allow it in the browser, or choose a photo.`));
    return;
  }
  if (number !== shown) {
    endStream(video);
    return;
  }
  camera = video;
  part.webcam.setAttribute("aria-pressed", "true");
  part.status.textContent = `Webcam (${model.engine})`;
  try {
    while (camera === video) await showBitmap(await createImageBitmap(video), () => camera === video);
  } catch (error) {
    stopCamera();
    report(error);
  }
}

function endStream(video) {
  video.srcObject.getTracks().forEach((track) => track.stop());
}

function stopCamera() {
  if (camera) endStream(camera);
  camera = null;
  part.webcam.setAttribute("aria-pressed", "false");
  part.status.textContent = `Ready (${model.engine})`;
}

function saveMask() {
  part.mask.toBlob((blob) => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(blob);
    link.download = "mask.png";
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  });
}

function setOpacity() {
  part.mask.style.opacity = part.opacity.value / 100;
  part.percent.textContent = `${part.opacity.value} %`;
}

part.choose.onclick = () => part.file.click();
part.file.onchange = () => part.file.files[0] && showFile(part.file.files[0]).then(() => (part.file.value = ""));
part.webcam.onclick = () => (camera ? stopCamera() : startCamera());
part.save.onclick = saveMask;
part.opacity.oninput = setOpacity;
document.ondragover = (event) => {
  event.preventDefault();
  part.stage.classList.add("over");
};
document.ondragleave = () => part.stage.classList.remove("over");
document.ondrop = (event) => {
  event.preventDefault();
  part.stage.classList.remove("over");
  const file = event.dataTransfer.files[0];
  if (file && model) showFile(file);
};
setOpacity();
start();
