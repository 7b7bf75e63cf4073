// OpenCV's half-pixel bilinear and nearest resizing, number for number.

/** For each of `to` places along an axis of `from` samples: its two neighbours and the share of the second. */
function neighbours(from, to) {
  const low = new Int32Array(to);
  const high = new Int32Array(to);
  const share = new Float32Array(to);
  for (let index = 0; index < to; index++) {
    const place = Math.fround((index + 0.5) * (from / to) - 0.5);
    const before = Math.floor(place);
    const inside = before >= 0 && before < from - 1;
    low[index] = Math.min(Math.max(before, 0), from - 1);
    high[index] = Math.min(low[index] + 1, from - 1);
    share[index] = inside ? place - before : 0;
  }
  return { low, high, share };
}

/** Rows resized along their length, each computed once: `of(row)` is kept for the last two. */
function rowCache(compute, length, Kind) {
  const kept = [new Kind(length), new Kind(length)];
  const which = [-1, -1];
  return (row) => {
    const found = which.indexOf(row);
    if (found >= 0) return kept[found];
    const slot = which[0] < which[1] ? 0 : 1;
    which[slot] = row;
    compute(row, kept[slot]);
    return kept[slot];
  };
}

/** Floats [height, width, channels] -> Float32Array [toHeight, toWidth, channels], bilinear. */
export function resizeFloats(data, height, width, channels, toHeight, toWidth) {
  if (height === toHeight && width === toWidth) return data;
  const across = neighbours(width, toWidth);
  const down = neighbours(height, toHeight);
  const length = toWidth * channels;
  const rowOf = rowCache(
    (row, out) => {
      const start = row * width * channels;
      for (let x = 0, at = 0; x < toWidth; x++) {
        const left = start + across.low[x] * channels;
        const right = start + across.high[x] * channels;
        const share = across.share[x];
        for (let c = 0; c < channels; c++, at++) out[at] = data[left + c] * (1 - share) + data[right + c] * share;
      }
    },
    length,
    Float32Array,
  );
  const out = new Float32Array(toHeight * length);
  for (let y = 0, at = 0; y < toHeight; y++) {
    const top = rowOf(down.low[y]);
    const bottom = rowOf(down.high[y]);
    const share = down.share[y];
    for (let x = 0; x < length; x++, at++) out[at] = top[x] * (1 - share) + bottom[x] * share;
  }
  return out;
}

const ONE = 2048; // OpenCV's weights of 8-bit pixels: 11 bits after the point

/** Bytes [height, width, channels] -> Uint8ClampedArray [toHeight, toWidth, channels], in OpenCV's whole numbers. */
export function resizeBytes(data, height, width, channels, toHeight, toWidth) {
  if (height === toHeight && width === toWidth) return data;
  const across = neighbours(width, toWidth);
  const down = neighbours(height, toHeight);
  const length = toWidth * channels;
  const rowOf = rowCache(
    (row, out) => {
      const start = row * width * channels;
      for (let x = 0, at = 0; x < toWidth; x++) {
        const left = start + across.low[x] * channels;
        const right = start + across.high[x] * channels;
        const first = Math.round((1 - across.share[x]) * ONE);
        const second = Math.round(across.share[x] * ONE);
        for (let c = 0; c < channels; c++, at++) out[at] = (data[left + c] * first + data[right + c] * second) >> 4;
      }
    },
    length,
    Int32Array,
  );
  const out = new Uint8ClampedArray(toHeight * length);
  for (let y = 0, at = 0; y < toHeight; y++) {
    const top = rowOf(down.low[y]);
    const bottom = rowOf(down.high[y]);
    const first = Math.round((1 - down.share[y]) * ONE);
    const second = Math.round(down.share[y] * ONE);
    for (let x = 0; x < length; x++, at++) {
      out[at] = (((first * top[x]) >> 16) + ((second * bottom[x]) >> 16) + 2) >> 2;
    }
  }
  return out;
}

/** [height, width, channels] of any type by nearest neighbour; `places` says which sample each place takes. */
export function resizeNearest(data, height, width, channels, toHeight, toWidth, places) {
  const rows = places(height, toHeight);
  const columns = places(width, toWidth);
  const out = new data.constructor(toHeight * toWidth * channels);
  for (let y = 0, at = 0; y < toHeight; y++) {
    for (let x = 0; x < toWidth; x++) {
      const from = (rows[y] * width + columns[x]) * channels;
      for (let c = 0; c < channels; c++, at++) out[at] = data[from + c];
    }
  }
  return out;
}

/** Nearest samples as OpenCV counts them. */
export function nearestPlaces(from, to) {
  return Int32Array.from({ length: to }, (_, index) => Math.min(Math.floor(index * (from / to)), from - 1));
}

/** Nearest samples as masks are enlarged, counted in 32-bit floats. */
export function maskPlaces(from, to) {
  const scale = Math.fround(from / to);
  return Int32Array.from({ length: to }, (_, index) => Math.trunc(Math.fround(index * scale)));
}
