package seal

import (
	"context"
	"errors"

	commonpb "go.temporal.io/api/common/v1"
	"go.temporal.io/sdk/converter"
)

// dataConverter passes serialization contexts to the codec.
type dataConverter struct{ converter.DataConverter }

// WithSerializationContext implements converter.DataConverterWithSerializationContext.
func (d *dataConverter) WithSerializationContext(ctx converter.SerializationContext) converter.DataConverter {
	return &dataConverter{converter.WithDataConverterSerializationContext(d.DataConverter, ctx)}
}

// WithContext implements converter.ContextAware.
func (d *dataConverter) WithContext(context.Context) converter.DataConverter { return d }

// WithWorkflowContext implements converter.ContextAware.
func (d *dataConverter) WithWorkflowContext(converter.WorkflowContext) converter.DataConverter {
	return &workflowConverter{*d}
}

// workflowConverter is the converter for workflow code. There, an error in the decoding of the input
// would fail the workflow permanently; a panic fails only the workflow task.
type workflowConverter struct{ dataConverter }

// WithSerializationContext implements converter.DataConverterWithSerializationContext.
func (w *workflowConverter) WithSerializationContext(ctx converter.SerializationContext) converter.DataConverter {
	return &workflowConverter{dataConverter{converter.WithDataConverterSerializationContext(w.DataConverter, ctx)}}
}

// WithWorkflowContext implements converter.ContextAware.
func (w *workflowConverter) WithWorkflowContext(converter.WorkflowContext) converter.DataConverter {
	return w
}

// FromPayload implements converter.DataConverter.
func (w *workflowConverter) FromPayload(payload *commonpb.Payload, into any) error {
	return panicWhereUnknown(w.DataConverter.FromPayload(payload, into))
}

// FromPayloads implements converter.DataConverter. It returns [ErrNotSealed] if a value is missing:
// another client of the namespace can complete an activity without a result.
func (w *workflowConverter) FromPayloads(payloads *commonpb.Payloads, into ...any) error {
	if len(payloads.GetPayloads()) < len(into) {
		return ErrNotSealed
	}
	return panicWhereUnknown(w.DataConverter.FromPayloads(payloads, into...))
}

func panicWhereUnknown(err error) error {
	if errors.Is(err, ErrUnknownKey) {
		panic(ErrUnknownKey)
	}
	return err
}
