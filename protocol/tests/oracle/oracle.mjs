// Makes oracle.json and foreign.json: what npm's `ipfs-unixfs-importer`, which shares no code with modswarm, makes of the inputs
// described here. The tests in ../oracle.rs build the same inputs and compare CIDs.
//
// To run it again, in an empty directory outside of the repository:
//   npm install ipfs-unixfs-importer@17.1.1 @ipld/dag-pb@4 multiformats@14 @noble/hashes@2
//   cp <repository>/protocol/tests/oracle/oracle.mjs . && node oracle.mjs
// and copy oracle.json and foreign.json back. It takes some minutes.
//
// The importer hashes with SHA2-256 only. For BLAKE3 its blocks are hashed again from the leaves up, each link replaced by the new
// CID and encoded with @ipld/dag-pb; the shape is the importer's.
import { writeFileSync } from 'node:fs'
import * as dagPb from '@ipld/dag-pb'
import { blake3 } from '@noble/hashes/blake3.js'
import { importer } from 'ipfs-unixfs-importer'
import { fixedSize } from 'ipfs-unixfs-importer/chunker'
import { trickle } from 'ipfs-unixfs-importer/layout'
import { CID } from 'multiformats/cid'
import { create as createDigest } from 'multiformats/hashes/digest'

// Byte i of a file with this seed.
const content = (size, seed) => {
  const bytes = new Uint8Array(size)
  for (let i = 0; i < size; i++) bytes[i] = (i * 31 + (i >>> 8) * 17 + (i >>> 16) * 101 + seed) & 0xff
  return bytes
}

// `many` stands for `count` files of one byte each, called dir/prefix0.pak and so on.
const MANY = (dir, prefix, count) => ({ dir, prefix, count })
const CASES = [
  { case: 'empty file', chunk: 1048576, files: [['empty.txt', 0, 0]] },
  { case: 'one byte', chunk: 1048576, files: [['one.txt', 1, 7]] },
  { case: 'exactly one chunk', chunk: 4096, files: [['a.pak', 4096, 1]] },
  { case: 'one byte more than a chunk', chunk: 4096, files: [['a.pak', 4097, 1]] },
  { case: '1024 chunks', chunk: 16, files: [['a.pak', 16384, 2]] },
  { case: '1025 chunks: three levels', chunk: 16, files: [['a.pak', 16385, 2]] },
  { case: '2048 chunks and one byte', chunk: 16, files: [['a.pak', 32769, 3]] },
  { case: '1024 x 1024 chunks and one: four levels', chunk: 1, files: [['a.pak', 1048577, 4]] },
  { case: 'empty folder', chunk: 1048576, files: [], dirs: ['nothing'] },
  { case: 'a folder of several', chunk: 1024, files: [['b.pak', 5000, 1], ['a.pak', 10, 2], ['B.pak', 3000, 3], ['Z', 0, 0]] },
  {
    case: 'nested, names in several scripts',
    chunk: 256,
    files: [
      ['~mods/Skin v1.2_9999999_P.pak', 1000, 1],
      ['~mods/Skin v1.2_9999999_P.ucas', 4000, 2],
      ['~mods/.hidden', 3, 3],
      ['~mods/日本語/模組.pak', 777, 4],
      ['~mods/русский/мод é.pak', 300, 5],
      ['~mods/😀.txt', 20, 6],
      ['same.pak', 1000, 1],
      ['zz', 1, 9]
    ],
    dirs: ['~mods/empty', 'top']
  },
  { case: 'many names in a plain folder', chunk: 1024, files: [], many: [MANY('mods', 'Some mod with a long name ', 2600)] },
  { case: 'a folder past 256 KiB: HAMT', chunk: 1024, files: [], many: [MANY('mods', 'Some mod with a long name ', 6000)] },
  // The nested folder comes first: added to after its root has become a HAMT, it makes the importer lose entries of the root.
  {
    case: 'HAMT at the root, beside a nested one',
    chunk: 1024,
    files: [['a/b.pak', 5000, 1]],
    many: [MANY('a', 'Some mod with a long name '.repeat(5), 1900), MANY('', 'skin-'.repeat(20), 2000)]
  },
  // Names whose hashes share their first bytes: five shards deep.
  { case: 'HAMT with colliding names', chunk: 1024, files: COLLIDING().map((name, i) => [`mods/${name}`, 1, i]), many: [MANY('mods', 'Some mod with a long name ', 5000)] }
]

function COLLIDING () {
  return ['c17659.pak', 'c29885.pak', 'c145003.pak', 'c150857.pak', 'c6684.pak', 'c211348.pak', 'c56810.pak', 'c223290.pak', 'c83059.pak', 'c248351.pak', 'c127105.pak', 'c257805.pak', 'c19407.pak', 'c263184.pak', 'c12488.pak', 'c270146.pak']
}

function candidates (input) {
  const all = input.files.map(([path, size, seed]) => ({ path, content: content(size, seed) }))
  for (const path of input.dirs ?? []) all.push({ path })
  for (const { dir, prefix, count } of input.many ?? []) {
    for (let i = 0; i < count; i++) all.push({ path: `${dir === '' ? '' : `${dir}/`}${prefix}${i}.pak`, content: content(1, i & 0xff) })
  }
  return all
}

class Blocks {
  map = new Map()
  put (cid, bytes) { this.map.set(cid.toString(), { cid, bytes }); return cid }
}

async function build (input, options) {
  const blocks = new Blocks()
  let root
  for await (const entry of importer(candidates(input), blocks, {
    profile: 'unixfs-v1-2025', chunker: fixedSize({ chunkSize: input.chunk }), wrapWithDirectory: true, ...options
  })) root = entry.cid
  return { root, blocks }
}

// The same DAG with BLAKE3 for every hash.
function rehash (root, blocks) {
  const known = new Map()
  const visit = (cid) => {
    const key = cid.toString()
    if (known.has(key)) return known.get(key)
    let { bytes } = blocks.map.get(key)
    if (cid.code === dagPb.code) {
      const node = dagPb.decode(bytes)
      bytes = dagPb.encode({ ...node, Links: node.Links.map((link) => ({ ...link, Hash: visit(link.Hash) })) })
    }
    const fresh = CID.createV1(cid.code, createDigest(0x1e, blake3(bytes)))
    known.set(key, fresh)
    return fresh
  }
  return visit(root)
}

const answers = []
for (const input of CASES) {
  const { root, blocks } = await build(input)
  answers.push({ ...input, sha2_256: root.toString(), blake3: rehash(root, blocks).toString() })
}
const lines = (all) => `[\n${all.map((each) => JSON.stringify(each)).join(',\n')}\n]\n`
writeFileSync('oracle.json', lines(answers))

// DAGs that modswarm does not make and must read: CIDv0, file bytes in dag-pb leaves, narrow or trickle layouts.
const FOREIGN = {
  chunk: 16,
  files: [['mods/long.pak', 700, 1], ['mods/short.txt', 5, 2], ['mods/empty.txt', 0, 0], ['same.txt', 5, 2]],
  dirs: ['nothing']
}
const foreign = []
for (const [name, options] of [
  ['unixfs-v0-2015', { profile: 'unixfs-v0-2015' }],
  ['trickle with dag-pb leaves', { rawLeaves: false, leafType: 'raw', reduceSingleLeafToSelf: false, layout: trickle({ layerRepeat: 2, maxChildrenPerNode: 4 }) }]
]) {
  const { root, blocks } = await build(FOREIGN, options)
  foreign.push({
    ...FOREIGN, case: name, root: root.toString(),
    blocks: [...blocks.map.values()].map(({ cid, bytes }) => [cid.toString(), Buffer.from(bytes).toString('hex')])
  })
}
writeFileSync('foreign.json', lines(foreign))
