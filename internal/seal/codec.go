package seal

import (
	"errors"
	"fmt"
	"regexp"

	commonpb "go.temporal.io/api/common/v1"
	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/temporal"
	"google.golang.org/protobuf/proto"
)

const (
	payloadEncoding = "binary/encrypted"
	// scopeMetadata says in clear whose a payload is: a namespace, a workflow ID and an
	// activity's type, which its associated data binds it to.
	scopeMetadata = "leaver-scope"
)

// The errors of payloads.
var (
	// ErrNotSealed is returned for a payload that leaver did not encrypt. Another Temporal
	// client may have written it.
	ErrNotSealed = errors.New("the payload is not encrypted by leaver")
	// ErrOtherScope is returned for a payload that is bound to another namespace, workflow or
	// type of activity.
	ErrOtherScope = errors.New("the payload belongs to another workflow or activity")
	// ErrUnknownKey is returned for a payload, or a sealed text, of a key that is not in the key set.
	ErrUnknownKey = errors.New("the payload was sealed by a key that is not in this process's key set: give all processes the same keys (`leaver keyset rotate`)")
)

// Codec encrypts every payload of a Temporal history (I4), and opens nothing else: neither
// plain payloads, nor those of another workflow or another type of activity. So what a workflow is started, signalled or
// updated with comes from leaver. It implements converter.PayloadCodecWithSerializationContext.
type Codec struct {
	sealer *Sealer
	scope  string // the namespace and workflow ID; empty opens any
}

// NewCodec returns the codec that uses s. Without a serialization context it opens payloads
// of any workflow, as the codec server has to, which is not told which one it is asked about.
func NewCodec(s *Sealer) *Codec { return &Codec{sealer: s} }

// scheduled is what Temporal appends to the workflow ID of a schedule's action.
var scheduled = regexp.MustCompile(`-\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}Z$`)

// WithSerializationContext implements converter.PayloadCodecWithSerializationContext.
func (c *Codec) WithSerializationContext(ctx converter.SerializationContext) converter.PayloadCodec {
	var namespace, workflow, activity string
	switch ctx := ctx.(type) {
	case converter.WorkflowSerializationContext:
		namespace, workflow = ctx.Namespace, ctx.WorkflowID
	case converter.ActivitySerializationContext:
		namespace, workflow, activity = ctx.Namespace, ctx.WorkflowID, ctx.ActivityType
	}
	// Neither a type of activity nor a namespace holds what separates them here, whatever an
	// intruder calls a workflow.
	return &Codec{c.sealer, activity + "@" + namespace + "/" + scheduled.ReplaceAllString(workflow, "")}
}

// payloadContext keeps payloads and rows apart, and each payload to its workflow.
func payloadContext(scope string) []byte { return []byte("leaver/temporal-payload/" + scope) }

// Encode implements converter.PayloadCodec.
func (c *Codec) Encode(payloads []*commonpb.Payload) ([]*commonpb.Payload, error) {
	out := make([]*commonpb.Payload, len(payloads))
	for i, p := range payloads {
		plain, err := proto.Marshal(p)
		if err != nil {
			return nil, fmt.Errorf("encode a payload: %w", err)
		}
		sealed, err := c.sealer.aead.Encrypt(plain, payloadContext(c.scope))
		if err != nil {
			return nil, fmt.Errorf("encrypt a payload: %w", err)
		}
		out[i] = &commonpb.Payload{
			Metadata: map[string][]byte{converter.MetadataEncoding: []byte(payloadEncoding), scopeMetadata: []byte(c.scope)},
			Data:     sealed,
		}
	}
	return out, nil
}

// Decode implements converter.PayloadCodec.
// Errors: [ErrNotSealed], [ErrOtherScope], [ErrUnknownKey].
func (c *Codec) Decode(payloads []*commonpb.Payload) ([]*commonpb.Payload, error) {
	out := make([]*commonpb.Payload, len(payloads))
	for i, p := range payloads {
		scope := string(p.GetMetadata()[scopeMetadata])
		switch {
		case string(p.GetMetadata()[converter.MetadataEncoding]) != payloadEncoding:
			return nil, ErrNotSealed
		case c.scope != "" && scope != c.scope:
			return nil, ErrOtherScope
		case !c.sealer.knows(p.GetData()):
			c.sealer.unopened.Add(1)
			return nil, ErrUnknownKey
		}
		plain, err := c.sealer.aead.Decrypt(p.GetData(), payloadContext(scope))
		if err != nil {
			return nil, errors.New("decrypt a payload: authentication failed, the payload was modified")
		}
		out[i] = &commonpb.Payload{}
		if err := proto.Unmarshal(plain, out[i]); err != nil {
			return nil, fmt.Errorf("decode a payload: %w", err)
		}
	}
	return out, nil
}

// DataConverter encodes with Temporal's defaults and encrypts with s. In workflow code a
// payload of an unknown key fails the workflow task, which is retried, and not the
// workflow: the right key may come.
func DataConverter(s *Sealer) converter.DataConverter {
	return &dataConverter{converter.NewCodecDataConverter(converter.GetDefaultDataConverter(), NewCodec(s))}
}

// FailureConverter also encrypts failure messages, which Temporal leaves readable otherwise.
func FailureConverter(s *Sealer) converter.FailureConverter {
	return temporal.NewDefaultFailureConverter(temporal.DefaultFailureConverterOptions{
		DataConverter:          DataConverter(s),
		EncodeCommonAttributes: true,
	})
}
