// What was dropped, chosen or packed -> files: folders are walked, zip archives are opened here.

const MOST_FILES = 256;
const MOST_BYTES = 2 ** 30; // of what archives unpack to: more does not fit in a page's memory
// What archivers and systems add of their own accord
const NOT_SENT = /(^|\/)(__MACOSX\/|\.DS_Store$|Thumbs\.db$|DICOMDIR$|\.)/;

/** More than a page can hold: `reason` is "files" or "bytes", or "archive" for a damaged one. */
export class Unacceptable extends Error {
  constructor(reason) {
    super(reason);
    this.reason = reason;
  }
}

/** The files of a drop, those in folders included. Must be called within the event. */
export async function droppedFiles(transfer) {
  const entries = [...transfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
  if (!entries.length) return opened([...transfer.files]);
  const found = [];
  for (const entry of entries) await walk(entry, found);
  return opened(found);
}

/** `files` with what is in zip archives in their place. Throws `Unacceptable`. */
export async function opened(files) {
  const found = [];
  const room = { bytes: MOST_BYTES };
  for (const file of files) {
    if (NOT_SENT.test(file.webkitRelativePath || file.name)) continue;
    if (await isZip(file)) found.push(...(await unzipped(file, room)));
    else found.push(file);
    if (found.length > MOST_FILES) throw new Unacceptable("files");
  }
  return found;
}

async function walk(entry, found) {
  if (found.length > MOST_FILES) throw new Unacceptable("files");
  if (entry.isFile) {
    found.push(await new Promise((resolve, reject) => entry.file(resolve, reject)));
    return;
  }
  const reader = entry.createReader();
  // A reader gives a hundred entries at a time, and none at the end
  for (;;) {
    const some = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
    if (!some.length) return;
    for (const inner of some) await walk(inner, found);
  }
}

async function isZip(file) {
  const start = new Uint8Array(await file.slice(0, 4).arrayBuffer());
  return start[0] === 0x50 && start[1] === 0x4b && start[2] === 3 && start[3] === 4;
}

async function unzipped(file, room) {
  const { Unzip, UnzipInflate } = await import("./vendor/fflate.js");
  const files = [];
  let fault = null;
  const archive = new Unzip((entry) => {
    if (entry.name.endsWith("/") || NOT_SENT.test(entry.name)) return;
    if (files.length >= MOST_FILES) {
      fault = new Unacceptable("files");
      return;
    }
    const held = { name: entry.name.split("/").at(-1), parts: [], ended: false };
    files.push(held);
    entry.ondata = (error, data, final) => {
      if (error) fault ??= new Unacceptable("archive");
      else {
        room.bytes -= data.length;
        if (room.bytes < 0) fault ??= new Unacceptable("bytes");
        else held.parts.push(data);
      }
      held.ended = final;
    };
    entry.start();
  });
  archive.register(UnzipInflate);
  const reader = file.stream().getReader();
  try {
    for (let read = await reader.read(); !fault; read = await reader.read()) {
      archive.push(read.value ?? new Uint8Array(), read.done);
      if (read.done) break;
    }
  } catch {
    fault ??= new Unacceptable("archive");
  } finally {
    reader.cancel().catch(() => {});
  }
  if (!fault && !files.every((held) => held.ended)) fault = new Unacceptable("archive");
  if (fault) throw fault;
  return files.map((held) => new File(held.parts, held.name));
}
