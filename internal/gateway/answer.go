package gateway

import (
	"bytes"
	"compress/gzip"
	"io"
	"net/http"

	"github.com/headgate/headgate"
	"github.com/headgate/headgate/genesys"
)

// readAnswer reads what an answer says of the limits. Answers come as the
// caller has asked for them: a refusal in gzip is read unpacked, and passed on
// as it came.
func readAnswer(resp *http.Response) headgate.Observation {
	if resp.Header.Get("Content-Encoding") != "gzip" || resp.StatusCode < 400 {
		return genesys.ReadAnswer(resp)
	}
	packed, err := io.ReadAll(io.LimitReader(resp.Body, peekMost))
	rest := resp.Body
	resp.Body = streamed{io.MultiReader(bytes.NewReader(packed), rest), rest}
	if err != nil {
		return genesys.ReadAnswer(resp)
	}
	unpacked := *resp
	unpacked.Body = io.NopCloser(bytes.NewReader(nil))
	if zip, err := gzip.NewReader(bytes.NewReader(packed)); err == nil {
		text, _ := io.ReadAll(io.LimitReader(zip, peekMost))
		unpacked.Body = io.NopCloser(bytes.NewReader(text))
	}
	return genesys.ReadAnswer(&unpacked)
}

// peekMost is how much of a refusal is read: they are short.
const peekMost = 64 << 10
