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
	// scopeMetadata is the metadata key of a payload's scope, in cleartext: namespace, workflow ID and
	// activity type. The associated data binds the payload to its scope.
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
	// ErrUnknownKey is returned for a payload or sealed text whose key is not in the key set.
	ErrUnknownKey = errors.New("the payload was sealed by a key that is not in this process's key set: " +
		"give all processes the same keys (`leaver keyset rotate`)")
)

// Codec encrypts every payload of a Temporal history (I4). It rejects payloads that are not encrypted or
// that belong to another workflow or activity type, so every input, signal and update of a workflow comes
// from leaver. It implements converter.PayloadCodecWithSerializationContext.
type Codec struct {
	sealer *Sealer
	scope  string // the namespace and workflow ID; empty opens any
}

// NewCodec returns the codec that uses s. Without a serialization context it opens payloads of any
// workflow: the codec server does not know the workflow of a payload.
func NewCodec(s *Sealer) *Codec { return &Codec{sealer: s} }

// scheduled matches the suffix that Temporal appends to the workflow ID of a schedule's action.
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
	// Activity types and namespaces do not contain the separators, so that scopes are unambiguous for
	// every workflow ID that an attacker chooses.
	return &Codec{c.sealer, activity + "@" + namespace + "/" + scheduled.ReplaceAllString(workflow, "")}
}

// payloadContext returns the associated data of a payload, which differs from that of every row.
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

// DataConverter returns a converter that encodes with Temporal's defaults and encrypts with s. In
// workflow code, a payload of an unknown key fails the workflow task and not the workflow: the task is
// retried, and succeeds once the worker has the key.
func DataConverter(s *Sealer) converter.DataConverter {
	return &dataConverter{converter.NewCodecDataConverter(converter.GetDefaultDataConverter(), NewCodec(s))}
}

// FailureConverter returns a converter that also encrypts failure messages, unlike Temporal's default.
func FailureConverter(s *Sealer) converter.FailureConverter {
	return temporal.NewDefaultFailureConverter(temporal.DefaultFailureConverterOptions{
		DataConverter:          DataConverter(s),
		EncodeCommonAttributes: true,
	})
}
