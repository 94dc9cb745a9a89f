package seal

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/tink-crypto/tink-go/v2/aead"
	"github.com/tink-crypto/tink-go/v2/insecurecleartextkeyset"
	"github.com/tink-crypto/tink-go/v2/keyset"
)

// AddKey returns a key set with an additional key that opens but does not seal yet. It is the first step
// of a rotation: give the key set to every process before [PromoteKey].
func AddKey(keysetJSON []byte) ([]byte, error) {
	return change(keysetJSON, func(m *keyset.Manager, _ *keyset.Handle) error {
		_, err := m.Add(aead.AES256GCMKeyTemplate())
		return err
	})
}

// PromoteKey returns a key set whose newest key seals. It is the second step of a rotation. The older
// keys are kept to open existing ciphertexts.
func PromoteKey(keysetJSON []byte) ([]byte, error) {
	return change(keysetJSON, func(m *keyset.Manager, h *keyset.Handle) error {
		keys := h.KeysetInfo().GetKeyInfo()
		newest := keys[len(keys)-1].GetKeyId()
		if newest == h.KeysetInfo().GetPrimaryKeyId() {
			return errors.New("the newest key is already the primary key: add a key first (`leaver keyset rotate --add`)")
		}
		return m.SetPrimary(newest)
	})
}

func change(keysetJSON []byte, edit func(*keyset.Manager, *keyset.Handle) error) ([]byte, error) {
	handle, err := insecurecleartextkeyset.Read(keyset.NewJSONReader(bytes.NewReader(keysetJSON)))
	if err != nil {
		// tink's error may quote the input, which is the key.
		return nil, errors.New("the key set is not a tink AEAD keyset in JSON (make one with `leaver keyset`)")
	}
	manager := keyset.NewManagerFromHandle(handle)
	if err := edit(manager, handle); err != nil {
		return nil, fmt.Errorf("change the key set: %w", err)
	}
	if handle, err = manager.Handle(); err != nil {
		return nil, fmt.Errorf("change the key set: %w", err)
	}
	var buf bytes.Buffer
	if err := insecurecleartextkeyset.Write(handle, keyset.NewJSONWriter(&buf)); err != nil {
		return nil, fmt.Errorf("write the key set: %w", err)
	}
	return buf.Bytes(), nil
}
