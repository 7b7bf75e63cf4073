// npm run serve [-- PORT [DIST]]: dist/ on 127.0.0.1, with the two headers that allow WebAssembly threads.
import { createReadStream } from "node:fs";
import { stat } from "node:fs/promises";
import { createServer } from "node:http";
import { extname, join, normalize, resolve, sep } from "node:path";
import { fileURLToPath } from "node:url";

const [port, folder] = process.argv.slice(2);
const dist = folder ? resolve(folder) : fileURLToPath(new URL("dist", import.meta.url));
const TYPES = {
  ".html": "text/html; charset=utf-8",
  ".css": "text/css; charset=utf-8",
  ".js": "text/javascript",
  ".mjs": "text/javascript",
  ".wasm": "application/wasm",
  ".yaml": "text/yaml; charset=utf-8",
};
const HEADERS = {
  "Cross-Origin-Opener-Policy": "same-origin",
  "Cross-Origin-Embedder-Policy": "require-corp",
  "Cache-Control": "no-cache",
};

async function answer(request, response) {
  const asked = decodeURIComponent(new URL(request.url, "http://localhost").pathname);
  const path = normalize(join(dist, asked.endsWith("/") ? `${asked}index.html` : asked));
  const found = path.startsWith(dist + sep) ? await stat(path).catch(() => null) : null;
  if (!found?.isFile()) {
    response.writeHead(404, HEADERS).end("not found");
    return;
  }
  const type = TYPES[extname(path)] ?? "application/octet-stream";
  response.writeHead(200, { ...HEADERS, "Content-Type": type, "Content-Length": found.size });
  createReadStream(path).pipe(response);
}

const server = createServer((request, response) => {
  answer(request, response).catch(() => response.writeHead(400, HEADERS).end("bad request"));
});
server.listen(Number(port ?? 8000), "127.0.0.1", () => {
  console.log(`http://127.0.0.1:${server.address().port}/`);
});
