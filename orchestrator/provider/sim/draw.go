package sim

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"image"
	"image/color"
	"image/png"
	"math"
	"math/rand/v2"
	"strconv"
	"sync"
)

// maxSide bounds the longer side of a picture, in pixels: a larger one is drawn smaller.
const maxSide = 512

// painter draws pictures, and keeps buffers between them.
type painter struct{ pool sync.Pool }

// Get implements png.EncoderBufferPool.
func (p *painter) Get() *png.EncoderBuffer {
	b, _ := p.pool.Get().(*png.EncoderBuffer)
	return b
}

// Put implements png.EncoderBufferPool.
func (p *painter) Put(b *png.EncoderBuffer) { p.pool.Put(b) }

// draw is a picture as a PNG, the same for the same order: soft blobs on waves,
// in a band of colours. The seed and the prompt each change all of it; input files
// leave their marks at the bottom.
func (p *painter) draw(o Order) []byte {
	w, h := scaled(o.Width, o.Height)
	d := dice(o.Seed, o.Prompt)
	field := make([]float64, w*h)
	// Every term is a product or sum of one-dimensional tables: that is what makes it cheap.
	add := func(scale float64, fx, fy func(t float64) float64, product bool) {
		row := make([]float64, w)
		for x := range row {
			row[x] = fx(float64(x) / float64(max(w, h)))
		}
		for y := range h {
			v := fy(float64(y) / float64(max(w, h)))
			line := field[y*w : (y+1)*w]
			for x := range line {
				if product {
					line[x] += scale * row[x] * v
				} else {
					line[x] += scale * (row[x] + v)
				}
			}
		}
	}
	wave := func() func(float64) float64 {
		freq, phase := 1+4*d.Float64(), 2*math.Pi*d.Float64()
		return func(t float64) float64 { return math.Sin(freq*math.Pi*t + phase) }
	}
	bell := func(width float64) func(float64) float64 {
		mid := d.Float64()
		return func(t float64) float64 { return math.Exp(-(t - mid) * (t - mid) / (width * width)) }
	}
	add(0.5, wave(), wave(), false)
	add(0.7, wave(), wave(), true)
	for range 3 {
		width := 0.08 + 0.22*d.Float64()
		add(1+d.Float64(), bell(width), bell(width), true)
	}
	low, high := field[0], field[0]
	for _, v := range field {
		low, high = min(low, v), max(high, v)
	}
	img := image.NewPaletted(image.Rect(0, 0, w, h), palette(d.Float64(), 0.08+0.2*d.Float64()))
	for i, v := range field {
		img.Pix[i] = uint8(255 * (v - low) / max(high-low, 1e-9))
	}
	mark(img.Pix, w, h, o.Inputs)
	var b bytes.Buffer
	e := png.Encoder{CompressionLevel: png.BestSpeed, BufferPool: p}
	if err := e.Encode(&b, img); err != nil {
		panic("sim: a picture does not encode: " + err.Error())
	}
	return weigh(b.Bytes(), heavy(o), d)
}

// weigh adds n MiB of noise to a PNG, in a chunk that every decoder passes over
// (PNG specification, section 5.4: ancillary, private, safe to copy).
func weigh(file []byte, n int, d *rand.Rand) []byte {
	if n <= 0 {
		return file
	}
	end := len(file) - 12 // IEND: its length, name and checksum
	out := binary.BigEndian.AppendUint32(bytes.Clone(file[:end]), uint32(n)<<20)
	name := len(out)
	out = append(out, "noSe"...)
	for range n << 17 {
		out = binary.LittleEndian.AppendUint64(out, d.Uint64())
	}
	out = binary.BigEndian.AppendUint32(out, crc32.ChecksumIEEE(out[name:]))
	return append(out, file[end:]...)
}

// palette runs from night blue through two colours of the wheel, span apart, to cream.
func palette(hue, span float64) color.Palette {
	stops := [][3]float64{{14, 16, 38}, wheel(hue, 0.75), wheel(hue+span, 1), {255, 246, 224}}
	pal := make(color.Palette, 256)
	for i := range pal {
		t := float64(i) / 255 * float64(len(stops)-1)
		n := min(int(t), len(stops)-2)
		a, b, part := stops[n], stops[n+1], t-float64(n)
		mix := func(c int) uint8 { return uint8(a[c] + (b[c]-a[c])*part) }
		pal[i] = color.RGBA{mix(0), mix(1), mix(2), 255}
	}
	return pal
}

// wheel is a full colour at an angle of 0 to 1.
func wheel(hue, light float64) [3]float64 {
	var c [3]float64
	for i := range c {
		_, t := math.Modf(hue + float64(i)/3 + 1)
		c[i] = 255 * light * min(1, max(0.18, math.Abs(6*t-3)-1))
	}
	return c
}

func scaled(w, h int) (int, int) {
	if side := max(w, h); side > maxSide {
		w, h = w*maxSide/side, h*maxSide/side
	}
	return max(w, 8), max(h, 8)
}

// price is what an output costs, in billionths of a dollar.
func price(o Order) int64 {
	const perMegapixel = 1_300_000
	cost := perMegapixel * int64(o.Width) * int64(o.Height) / (1024 * 1024)
	if o.Type != "imageInference" {
		cost *= 10
	}
	return cost
}

// dollars writes billionths of a dollar as a decimal number, exactly.
func dollars(nano int64) string {
	whole, rest := nano/1e9, nano%1e9
	s := strconv.FormatInt(1e9+rest, 10)[1:]
	for len(s) > 1 && s[len(s)-1] == '0' {
		s = s[:len(s)-1]
	}
	return strconv.FormatInt(whole, 10) + "." + s
}
