// npm run build [-- EXPORTED_FOLDER [DIST]]: the page and its runtime into dist/, the exported model into dist/model/.
import { build } from "esbuild";
import { copyFile, mkdir, readdir, readFile, rm } from "node:fs/promises";
import { basename, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { readSpec } from "./src/deploy.js";

const here = fileURLToPath(new URL(".", import.meta.url));
const [exported, target] = process.argv.slice(2);
const dist = target ? resolve(target) : join(here, "dist");
// Without WebGPU a browser loads the first pair alone, half the size of the second.
const RUNTIME = ["ort-wasm-simd-threaded", "ort-wasm-simd-threaded.asyncify"];

// What this program makes, and may remove again.
const MADE = /^((page|worker|chunk-\w+)\.js|index\.html|style\.css|runtime|model)$/;

/** Remove an earlier page. A folder of anything else is refused. */
async function clear() {
  const names = await readdir(dist).catch((error) => {
    if (error.code === "ENOENT") return [];
    throw new Error(`${dist}: cannot be read (${error.code}). Give another folder.`);
  });
  if (names.length && !["index.html", "page.js", "worker.js"].every((name) => names.includes(name))) {
    throw new Error(`${dist}: there are other files in this folder. Give a new one, or one that was built before.`);
  }
  for (const name of names.filter((name) => MADE.test(name))) await rm(join(dist, name), { recursive: true });
}

async function bundle() {
  await build({
    entryPoints: [join(here, "src/page.js"), join(here, "src/worker.js")],
    outdir: dist,
    bundle: true,
    splitting: true,
    format: "esm",
    target: "es2022",
    minify: true,
    conditions: ["onnxruntime-web-use-extern-wasm"],
    logLevel: "warning",
  });
  for (const name of ["index.html", "style.css"]) await copyFile(join(here, "src", name), join(dist, name));
  const runtime = join(here, "node_modules/onnxruntime-web/dist");
  await mkdir(join(dist, "runtime"));
  for (const name of RUNTIME.flatMap((stem) => [`${stem}.mjs`, `${stem}.wasm`])) {
    await copyFile(join(runtime, name), join(dist, "runtime", name));
  }
}

async function copyModel(folder) {
  const text = await readFile(join(folder, "deploy.yaml"), "utf8");
  const spec = readSpec(text, join(folder, "deploy.yaml"));
  if (basename(spec.onnx) !== spec.onnx) throw new Error(`${folder}: Deploy.onnx is not a plain file name.`);
  await mkdir(join(dist, "model"));
  for (const name of ["deploy.yaml", spec.onnx]) await copyFile(join(folder, name), join(dist, "model", name));
}

try {
  await clear();
  await bundle();
  if (exported) await copyModel(exported);
  console.log(`${dist}: built. npm run serve shows it.`);
} catch (error) {
  console.error(error.message);
  process.exit(2);
}
