package instant

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"image"
	"image/png"
	"math/rand/v2"
)

// Size is the size of every output, in bytes.
const Size = 8 << 10

// picture is a PNG of exactly Size bytes: noise, which no compression makes
// smaller, filled up with a comment (PNG specification, section 11.3.4.3, tEXt).
func picture() []byte {
	const side = 88
	noise := image.NewGray(image.Rect(0, 0, side, side))
	rng := rand.New(rand.NewPCG(1, 2))
	for i := range noise.Pix {
		noise.Pix[i] = byte(rng.Uint32())
	}
	var b bytes.Buffer
	if err := png.Encode(&b, noise); err != nil {
		panic("instant: cannot encode a picture: " + err.Error())
	}
	const around, end = 12, 12 // bytes of a chunk beside its data; of the chunk IEND
	whole := b.Bytes()
	room := Size - len(whole) - around
	if room < 0 {
		panic("instant: the picture is too large")
	}
	head, tail := whole[:len(whole)-end], whole[len(whole)-end:]
	chunk := append([]byte("tEXtComment\x00"), bytes.Repeat([]byte{'.'}, room)...)[:4+room]
	out := binary.BigEndian.AppendUint32(bytes.Clone(head), uint32(room))
	out = append(out, chunk...)
	out = binary.BigEndian.AppendUint32(out, crc32.ChecksumIEEE(chunk))
	return append(out, tail...)
}
