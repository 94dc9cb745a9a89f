package seal

import (
	"fmt"

	commonpb "go.temporal.io/api/common/v1"
	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/temporal"
	"google.golang.org/protobuf/proto"
)

const payloadEncoding = "binary/encrypted"

// payloadContext keeps payloads and rows apart: neither opens as the other.
var payloadContext = []byte("leaver/temporal-payload")

// Codec encrypts every payload of a Temporal history (I4).
// It implements converter.PayloadCodec.
type Codec struct {
	sealer *Sealer
}

// NewCodec returns the codec that uses s.
func NewCodec(s *Sealer) *Codec { return &Codec{sealer: s} }

// Encode implements converter.PayloadCodec.
func (c *Codec) Encode(payloads []*commonpb.Payload) ([]*commonpb.Payload, error) {
	out := make([]*commonpb.Payload, len(payloads))
	for i, p := range payloads {
		plain, err := proto.Marshal(p)
		if err != nil {
			return nil, fmt.Errorf("encode a payload: %w", err)
		}
		sealed, err := c.sealer.aead.Encrypt(plain, payloadContext)
		if err != nil {
			return nil, fmt.Errorf("encrypt a payload: %w", err)
		}
		out[i] = &commonpb.Payload{
			Metadata: map[string][]byte{converter.MetadataEncoding: []byte(payloadEncoding)},
			Data:     sealed,
		}
	}
	return out, nil
}

// Decode implements converter.PayloadCodec; what it did not encrypt passes through.
func (c *Codec) Decode(payloads []*commonpb.Payload) ([]*commonpb.Payload, error) {
	out := make([]*commonpb.Payload, len(payloads))
	for i, p := range payloads {
		if string(p.GetMetadata()[converter.MetadataEncoding]) != payloadEncoding {
			out[i] = p
			continue
		}
		plain, err := c.sealer.aead.Decrypt(p.GetData(), payloadContext)
		if err != nil {
			return nil, fmt.Errorf("decrypt a payload: the keyset is another, or the payload was changed")
		}
		out[i] = &commonpb.Payload{}
		if err := proto.Unmarshal(plain, out[i]); err != nil {
			return nil, fmt.Errorf("decode a payload: %w", err)
		}
	}
	return out, nil
}

// DataConverter encodes with Temporal's defaults and encrypts with s.
func DataConverter(s *Sealer) converter.DataConverter {
	return converter.NewCodecDataConverter(converter.GetDefaultDataConverter(), NewCodec(s))
}

// FailureConverter also encrypts failure messages, which Temporal leaves readable otherwise.
func FailureConverter(s *Sealer) converter.FailureConverter {
	return temporal.NewDefaultFailureConverter(temporal.DefaultFailureConverterOptions{
		DataConverter:          DataConverter(s),
		EncodeCommonAttributes: true,
	})
}
