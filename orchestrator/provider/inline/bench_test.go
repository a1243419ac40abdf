package inline_test

import (
	"bytes"
	"fmt"
	"io"
	"testing"

	"github.com/genstream/genstream/orchestrator/provider/inline"
)

// BenchmarkRead reads webhooks as they come: small ones that name a URL, and
// those that bring their file along, which stays in memory or goes to disk.
func BenchmarkRead(b *testing.B) {
	dir := b.TempDir()
	const around = `{"data":[{"taskType":"imageInference","taskUUID":"4c0f3b9a-1f6e-4d0e-9d3a-5a4e0f4c9d11","seed":4242,"cost":0.0013,%s}]}`
	for name, field := range map[string]string{
		"URL":     `"imageURL":"https://im.runware.ai/image/ws/2/ii/4c0f3b9a.png"`,
		"8KiB":    `"imageBase64Data":"` + encode(noise(1, 8<<10)) + `"`,
		"200KiB":  `"imageBase64Data":"` + encode(noise(1, 200<<10)) + `"`,
		"2MiB":    `"imageBase64Data":"` + encode(noise(1, 2<<20)) + `"`,
		"dataURI": `"imageDataURI":"data:image\/png;base64,` + encode(noise(1, 8<<10)) + `"`,
	} {
		body := fmt.Appendf(nil, around, field)
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			b.SetBytes(int64(len(body)))
			for b.Loop() {
				r, err := inline.Read(piecewise{bytes.NewReader(body)}, inline.Limits{Dir: dir})
				if err != nil {
					b.Fatal(err)
				}
				if err := r.Close(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// piecewise gives at most 4 KiB at a time, as a connection's buffer does.
type piecewise struct{ r io.Reader }

func (p piecewise) Read(b []byte) (int, error) { return p.r.Read(b[:min(len(b), 4<<10)]) }
