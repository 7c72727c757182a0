// Command dockerfile-check reads a Dockerfile with BuildKit's parser, instruction checks and linter, without building.
//
// Errors and warnings go to stderr and make it fail; on success it prints {"copied": [paths copied from the context]}.
package main

import (
	"encoding/json"
	"fmt"
	"os"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/linter"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
)

func check(path string) (copied []string, warnings []string, err error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, nil, err
	}
	defer file.Close()
	parsed, err := parser.Parse(file)
	if err != nil {
		return nil, nil, err
	}
	for _, warning := range parsed.Warnings {
		warnings = append(warnings, warning.Short)
	}
	lint := linter.New(&linter.Config{Warn: func(rule, _, _, message string, location []parser.Range) {
		line := 0
		if len(location) > 0 {
			line = location[0].Start.Line
		}
		warnings = append(warnings, fmt.Sprintf("line %d: %s: %s", line, rule, message))
	}})
	stages, _, err := instructions.Parse(parsed.AST, lint)
	if err != nil {
		return nil, warnings, err
	}
	for _, stage := range stages {
		for _, command := range stage.Commands {
			if from, ok := command.(*instructions.CopyCommand); ok && from.From == "" {
				copied = append(copied, from.SourcePaths...)
			}
		}
	}
	return copied, warnings, nil
}

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: dockerfile-check DOCKERFILE")
		os.Exit(2)
	}
	copied, warnings, err := check(os.Args[1])
	for _, warning := range warnings {
		fmt.Fprintln(os.Stderr, warning)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	if err != nil || len(warnings) > 0 {
		os.Exit(1)
	}
	if err := json.NewEncoder(os.Stdout).Encode(map[string][]string{"copied": copied}); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
