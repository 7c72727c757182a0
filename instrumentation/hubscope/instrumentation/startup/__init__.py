"""The application's start: from process creation to interactive, as one trace."""
