package blob

import (
	"bytes"

	"github.com/gabriel-vasile/mimetype"
)

// sniffLen is how much of a file decides its type: the default of mimetype.
const sniffLen = 3072

// format is what a kind of file is called here.
type format struct{ contentType, ext string }

// formatOf is the allow list: from the type by which mimetype knows a content to
// how it is kept. SVG and HTML are missing on purpose, and so is every container
// that browsers do not play.
func formatOf(head []byte) (format, bool) {
	switch mimetype.Detect(head).String() {
	case "image/png", "image/apng": // an animated PNG is a PNG to everybody
		return format{"image/png", "png"}, true
	case "image/jpeg":
		return format{"image/jpeg", "jpg"}, true
	case "image/webp":
		return format{"image/webp", "webp"}, true
	case "image/gif":
		return format{"image/gif", "gif"}, true
	case "image/avif":
		return format{"image/avif", "avif"}, true
	case "video/mp4", "video/x-m4v":
		return format{"video/mp4", "mp4"}, true
	case "video/webm":
		return format{"video/webm", "webm"}, true
	case "video/quicktime":
		return format{"video/quicktime", "mov"}, true
	case "audio/mpeg":
		return format{"audio/mpeg", "mp3"}, beginsAsMP3(head)
	case "audio/wav":
		return format{"audio/wav", "wav"}, true
	case "audio/ogg":
		return format{"audio/ogg", "ogg"}, true
	case "audio/flac":
		return format{"audio/flac", "flac"}, true
	case "audio/mp4", "audio/x-m4a":
		return format{"audio/mp4", "m4a"}, true
	case "model/gltf-binary":
		return format{"model/gltf-binary", "glb"}, true
	}
	return format{}, false
}

// beginsAsMP3 asks for an ID3 tag or the sync word of a frame at the very
// beginning. mimetype finds frames anywhere, so a page with one in it would pass.
func beginsAsMP3(head []byte) bool {
	return bytes.HasPrefix(head, []byte("ID3")) || len(head) > 1 && head[0] == 0xff && head[1]&0xe0 == 0xe0
}
