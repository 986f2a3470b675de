"""Other people's tools that gossamer can speak to. Each is imported only when it is asked for."""
