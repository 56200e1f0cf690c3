meta:
  id: starlight_bundle
  title: starlight bundle, a denoiser for a chip
  file-extension: slb
  license: Apache-2.0
  encoding: UTF-8
  endian: le
doc: |
  Container, records and test vectors of a bundle of formats 1 and 2; docs/FORMAT.md explains them. Sections
  of an unknown kind are bytes. A parser made of this checks the magic and nothing else: neither
  CRCs nor ranges.
seq:
  - id: header
    type: header
  - id: table
    type: section
    repeat: expr
    repeat-expr: header.section_count
instances:
  trailer:
    pos: header.file_bytes - 64
    type: trailer
types:
  header:
    doc: The first 64 bytes.
    seq:
      - id: magic
        contents: [0x53, 0x4c, 0x42, 0x0d, 0x0a, 0x1a, 0x0a, 0x00]
      - id: format_major
        type: u2
      - id: format_minor
        type: u2
      - id: arithmetic_version
        type: u2
      - size: 2
      - id: file_bytes
        type: u8
      - id: section_count
        type: u4
      - id: table_offset
        type: u4
      - id: table_crc32
        type: u4
      - size: 24
      - id: header_crc32
        type: u4
  section:
    doc: An entry of the section table; `content` is what it points at.
    seq:
      - id: kind
        type: str
        size: 4
        encoding: ASCII
      - id: flags
        type: u4
        doc: "Bit 0: a reader that does not know the kind must refuse the file."
      - id: offset
        type: u8
      - id: bytes
        type: u8
      - id: crc32
        type: u4
      - size: 4
    instances:
      content:
        io: _root._io
        pos: offset
        size: bytes
        type:
          switch-on: kind
          cases:
            '"MODL"': model
            '"CHIP"': chip
            '"STRS"': strings
            '"BUFS"': buffers
            '"LAYR"': layers
            '"CHAN"': channels
            '"MULT"': multipliers
            '"WRIC"': packed_weights
            '"VECT"': vectors
            '"PLAN"': plan_tables
  packed_weights:
    doc: Golomb-Rice codes in the place of the weights; offsets count from the section's start.
    seq:
      - id: layer_count
        type: u4
      - id: plain_major
        type: u2
      - id: plain_minor
        type: u2
      - id: plain_sha256
        size: 32
      - size: 24
      - id: streams
        type: stream
        repeat: expr
        repeat-expr: layer_count
  stream:
    seq:
      - id: offset
        type: u8
      - id: bytes
        type: u4
      - id: k
        type: u1
      - size: 3
    instances:
      codes:
        pos: offset
        size: bytes
  trailer:
    seq:
      - id: sha256
        size: 32
      - size: 28
      - id: crc32
        type: u4
  model:
    seq:
      - id: levels
        type: u4
      - id: buffer_count
        type: u4
      - id: layer_count
        type: u4
      - id: channel_count
        type: u4
      - id: channel_block
        type: u4
      - id: arena_bytes_per_cell
        type: u4
      - id: name
        type: u4
      - id: arithmetic
        type: u1
      - id: activation_bits
        type: u1
      - id: weight_bits
        type: u1
      - size: 1
      - id: weight_bytes
        type: u8
      - size: 24
  chip:
    seq:
      - id: name
        type: u4
      - id: channel_block
        type: u4
      - id: alignment
        type: u4
      - id: accumulator_bits
        type: u4
      - id: max_width
        type: u4
      - id: max_height
        type: u4
      - id: capability_crc32
        type: u4
      - size: 36
  strings:
    doc: Names end at their NUL; a record's `name` is an offset into these bytes.
    seq:
      - id: bytes
        size-eos: true
  buffers:
    seq:
      - id: rows
        type: buffer
        repeat: eos
  buffer:
    seq:
      - id: name
        type: u4
      - id: channels
        type: u2
      - id: level
        type: u1
      - id: exponent
        type: s1
      - id: bits
        type: u1
      - id: kind
        type: u1
        enum: buffer_kind
      - size: 2
      - id: address_per_cell
        type: u4
      - id: bytes_per_cell
        type: u4
      - id: first_layer
        type: u2
      - id: last_layer
        type: u2
      - size: 8
  view:
    seq:
      - id: buffer
        type: u2
      - id: channel_offset
        type: u2
      - id: channels
        type: u2
      - id: pixel_stride
        type: u2
      - id: address_per_cell
        type: u4
      - id: level
        type: u1
      - id: exponent
        type: s1
      - size: 2
  layers:
    seq:
      - id: rows
        type: layer
        repeat: eos
  layer:
    seq:
      - id: name
        type: u4
      - id: op
        type: u1
        enum: op
      - id: flags
        type: u1
        doc: "Bit 0 relu, bit 1 has a join, bit 2 has an output."
      - id: activation_bits
        type: u1
      - id: weight_bits
        type: u1
      - id: kernel
        type: u1
      - id: stride
        type: u1
      - id: accumulator_bits
        type: u1
      - size: 5
      - id: input
        type: view
      - id: output
        type: view
      - id: join
        type: view
      - id: out_channels
        type: u4
      - id: in_channels
        type: u4
      - id: weight_offset
        type: u8
      - id: weight_bytes
        type: u8
      - id: channel_row
        type: u4
      - id: weight_crc32
        type: u4
      - id: macs_per_cell
        type: u8
      - size: 24
  channels:
    seq:
      - id: rows
        type: channel
        repeat: eos
  multipliers:
    seq:
      - id: rows
        type: multiplier
        repeat: eos
  multiplier:
    doc: "MULT: the requantisation of an output channel in multiplier arithmetic."
    seq:
      - id: multiplier
        type: u4
      - id: join_multiplier
        type: u4
      - id: shift
        type: u1
      - size: 7
  channel:
    seq:
      - id: bias
        type: s4
      - id: shift
        type: u1
      - id: join_shift
        type: u1
      - id: weight_exponent
        type: u1
      - size: 1
  vectors:
    seq:
      - id: head
        type: vectors_head
      - id: layer_crc32
        type: u4
        repeat: expr
        repeat-expr: head.layer_count
      - id: input
        size: head.width * head.height * 3
      - id: output
        size: head.width * head.height * 3
  vectors_head:
    seq:
      - id: width
        type: u4
      - id: height
        type: u4
      - id: layer_count
        type: u4
      - size: 4
  plan_tables:
    seq:
      - id: head
        type: plan
      - id: groups
        type: plan_group
        repeat: expr
        repeat-expr: head.group_count
      - id: windows
        type: plan_window
        repeat: expr
        repeat-expr: head.window_count
      - id: items
        type: plan_item
        repeat: expr
        repeat-expr: head.item_count
      - id: spills
        type: plan_spill
        repeat: expr
        repeat-expr: head.spill_count
  plan:
    doc: "PLAN: sizes of a stripe plan and its tables, which follow it."
    seq:
      - id: alignment
        type: u4
      - id: sram_bytes
        type: u4
      - id: dram_bytes_per_cell
        type: u4
      - id: group_count
        type: u4
      - id: window_count
        type: u4
      - id: item_count
        type: u4
      - id: spill_count
        type: u4
      - size: 36
  plan_group:
    doc: "A group of layers that run tile by tile."
    seq:
      - id: first_window
        type: u4
      - id: window_count
        type: u4
      - id: first_item
        type: u4
      - id: item_count
        type: u4
      - id: tile_height
        type: u4
      - id: tile_width
        type: u4
      - id: prologue
        type: u4
      - size: 4
  plan_window:
    doc: "SRAM of a buffer's channels in one group: a ring of rows."
    seq:
      - id: buffer
        type: u4
      - id: channel_offset
        type: u4
      - id: channels
        type: u4
      - id: flags
        type: u4
      - id: left
        type: s4
      - id: rows
        type: u4
      - id: columns
        type: u4
      - id: address
        type: u4
  plan_item:
    doc: "A layer or a load of a group."
    seq:
      - id: layer
        type: u4
      - id: input
        type: u4
      - id: join
        type: u4
      - id: output
        type: u4
      - id: spill
        type: u4
      - id: channel_offset
        type: u4
      - id: channels
        type: u4
      - id: top
        type: s4
      - id: bottom
        type: s4
      - id: left
        type: s4
      - id: right
        type: s4
      - id: weight_address
        type: u4
      - size: 16
  plan_spill:
    doc: "A tensor in DRAM between groups."
    seq:
      - id: buffer
        type: u4
      - id: channel_offset
        type: u4
      - id: channels
        type: u4
      - id: address_per_cell
        type: u4
      - id: first_group
        type: u4
      - id: last_group
        type: u4
      - size: 8
enums:
  buffer_kind:
    0: activation
    1: image
  op:
    1: conv3x3
    2: conv3x3_stride2
    3: conv1x1
    4: up
    5: tail
