"""Networks: plain torch modules with the published state-dict keys and shapes."""
