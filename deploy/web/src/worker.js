// The engine, off the page's thread: opens the exported model and turns photos into masks.
import { fail, readSpec } from "./deploy.js";
import { maskOf } from "./mask.js";
import { buildTransforms } from "./transforms.js";

let model = null;

/** Fetch deploy.yaml and the ONNX file of `folder` (a URL that ends in /) and start a session. */
async function open(folder) {
  const address = new URL("deploy.yaml", folder).href;
  const spec = readSpec(new TextDecoder().decode(await fetched(address)), address);
  const transforms = buildTransforms(spec);
  const bytes = await fetched(new URL(spec.onnx, folder).href);
  const { ort, session, engine } = await startSession(bytes);
  model = { spec, transforms, ort, session };
  return { classes: spec.classes, palette: spec.palette, engine };
}

async function fetched(address) {
  const response = await fetch(address).catch((error) => fail(`${address}: cannot be fetched (${error.message}).`));
  if (!response.ok) {
    fail(`${address}: there is no such file (${response.status}). Put an exported folder there: npm run build -- FOLDER`);
  }
  return new Uint8Array(await response.arrayBuffer());
}

/** WebGPU where the browser has it and it takes the model, else WebAssembly on the CPU's threads. */
async function startSession(bytes) {
  if (await wantsGpu(new URL(self.location.href).searchParams.get("engine"))) {
    const ort = await import("onnxruntime-web/webgpu");
    try {
      return { ort, session: await create(ort, bytes, "webgpu"), engine: "WebGPU" };
    } catch (error) {
      console.warn(`WebGPU does not take this model, WebAssembly does: ${error.message}`);
    }
  }
  const ort = await import("onnxruntime-web/wasm");
  const session = await create(ort, bytes, "wasm");
  const threads = self.crossOriginIsolated ? ort.env.wasm.numThreads : 1;
  return { ort, session, engine: `WebAssembly, ${threads} ${threads === 1 ? "thread" : "threads"}` };
}

/** Whether there is a graphics processor to compute on; one that software imitates is far slower than WebAssembly. */
async function wantsGpu(forced) {
  if (forced === "wasm") return false;
  const adapter = await self.navigator.gpu?.requestAdapter().catch(() => null);
  return Boolean(adapter) && (forced === "webgpu" || !adapter.info?.isFallbackAdapter);
}

async function create(ort, bytes, provider) {
  ort.env.logLevel = "error";
  ort.env.wasm.wasmPaths = new URL("runtime/", self.location.href).href;
  ort.env.wasm.numThreads = self.crossOriginIsolated ? Math.min(navigator.hardwareConcurrency, 8) : 1;
  return ort.InferenceSession.create(bytes, { executionProviders: [provider], graphOptimizationLevel: "all" });
}

/** The mask of an ImageBitmap at its own size, and the milliseconds of the network and of everything. */
async function segment(bitmap) {
  const start = performance.now();
  const geometry = [];
  let image = pixelsOf(bitmap, model.spec.channels);
  const { height, width } = image;
  for (const transform of model.transforms) image = transform(image, geometry);
  const input = tensorOf(image);
  const began = performance.now();
  const outputs = await model.session.run({ [model.session.inputNames[0]]: input });
  const ran = performance.now() - began;
  const output = outputs[model.session.outputNames[0]];
  const mask = maskOf({ data: await output.getData(), dims: output.dims }, geometry, model.spec);
  return { mask, height, width, network: ran, total: performance.now() - start };
}

/** RGB bytes, or the gray that OpenCV computes of them. */
function pixelsOf(bitmap, channels) {
  const { height, width } = bitmap;
  const context = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
  context.drawImage(bitmap, 0, 0);
  bitmap.close();
  const rgba = context.getImageData(0, 0, width, height).data;
  const data = new Uint8ClampedArray(height * width * channels);
  for (let from = 0, to = 0; from < rgba.length; from += 4, to += channels) {
    const [red, green, blue] = [rgba[from], rgba[from + 1], rgba[from + 2]];
    if (channels === 1) data[to] = (red * 4899 + green * 9617 + blue * 1868 + 8192) >> 14;
    else [data[to], data[to + 1], data[to + 2]] = [red, green, blue];
  }
  return { data, height, width, channels };
}

/** The image as the graph takes it: float32 NCHW, or uint8 NHWC where normalisation is in the graph. */
function tensorOf({ data, height, width, channels }) {
  const { ort, spec } = model;
  const [, , rows, columns] = spec.inputShape;
  if ((rows > 0 && rows !== height) || (columns > 0 && columns !== width)) {
    fail(
      `${spec.name}: the model takes ${columns}x${rows} pixels (width x height), but the transforms give ` +
        `${width}x${height}. Resize in the config's transforms, or export with --input_shape -1 ${channels} -1 -1.`,
    );
  }
  const pixels = height * width;
  const Kind = spec.inputDtype === "uint8" ? Uint8Array : Float32Array;
  if (spec.inputLayout === "NHWC") return new ort.Tensor(spec.inputDtype, Kind.from(data), [1, height, width, channels]);
  const planes = new Kind(data.length);
  for (let at = 0; at < pixels; at++) {
    for (let c = 0; c < channels; c++) planes[c * pixels + at] = data[at * channels + c];
  }
  return new ort.Tensor(spec.inputDtype, planes, [1, channels, height, width]);
}

self.onmessage = async ({ data: { id, task, value } }) => {
  try {
    const result = await { open, segment }[task](value);
    self.postMessage({ id, result }, result.mask ? [result.mask.buffer] : []);
  } catch (error) {
    self.postMessage({ id, error: error.message });
  }
};
