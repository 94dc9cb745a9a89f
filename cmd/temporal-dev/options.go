package main

import (
	"encoding/json"
	"fmt"
	"strings"

	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/server/common/dynamicconfig"
)

// options are the flags of start-dev.
type options struct {
	IP, UIIP         string
	Port, UIPort     int
	UICodecEndpoint  string
	Headless         bool
	DBFilename       string
	Namespaces       []string
	SearchAttributes []string
	DynamicConfig    []string
	LogLevel         string
	LogFormat        string
}

func (o options) uiHost() string {
	if o.UIIP != "" {
		return o.UIIP
	}
	return o.IP
}

func (o options) uiPort() int {
	if o.UIPort != 0 {
		return o.UIPort
	}
	return o.Port + 1000
}

// searchAttributes parses KEY=TYPE flags. TYPE is spelled as in the CLI
// (Keyword) or as in the API's enum (INDEXED_VALUE_TYPE_KEYWORD).
func (o options) searchAttributes() (map[string]enumspb.IndexedValueType, error) {
	attributes := make(map[string]enumspb.IndexedValueType, len(o.SearchAttributes))
	for _, arg := range o.SearchAttributes {
		name, typeName, ok := strings.Cut(arg, "=")
		if !ok {
			return nil, fmt.Errorf("--search-attribute %q: want KEY=TYPE", arg)
		}
		t, err := enumspb.IndexedValueTypeFromString(typeName)
		if err != nil {
			return nil, fmt.Errorf("--search-attribute %q: %w", arg, err)
		}
		attributes[name] = t
	}
	return attributes, nil
}

// developmentDefaults returns dynamic config values that reduce latency on a
// single shard. By default the server reads a shard's transfer queue 20 times a
// second, which adds 100 ms to every workflow.
func developmentDefaults() map[string]any {
	return map[string]any{
		"history.transferProcessorMaxPollRPS":            200,
		"history.timerProcessorMaxPollRPS":               200,
		"history.visibilityProcessorMaxPollRPS":          100,
		"matching.enableFairness":                        true,
		"matching.numTaskqueueReadPartitions":            1,
		"matching.numTaskqueueWritePartitions":           1,
		"frontend.enablePrincipalPropagation":            true,
		"frontend.enableServerVersionCheck":              false,
		"system.forceSearchAttributesCacheRefreshOnRead": true,
		"system.namespaceCacheRefreshInterval":           "250ms",
	}
}

func (o options) dynamicConfig() (dynamicconfig.StaticClient, error) {
	values := developmentDefaults()
	for _, arg := range o.DynamicConfig {
		key, text, ok := strings.Cut(arg, "=")
		if !ok {
			return nil, fmt.Errorf("--dynamic-config-value %q: want KEY=JSON", arg)
		}
		var value any
		if err := json.Unmarshal([]byte(text), &value); err != nil {
			return nil, fmt.Errorf("--dynamic-config-value %q: the value is not JSON: %w", arg, err)
		}
		if number, isFloat := value.(float64); isFloat && number == float64(int(number)) {
			value = int(number)
		}
		values[key] = value
	}
	client := make(dynamicconfig.StaticClient, len(values))
	for key, value := range values {
		client[dynamicconfig.MakeKey(key)] = value
	}
	return client, nil
}
