-- Draws the order number of a question before its rows are read; draws none if no verdict will be written.
SELECT CASE WHEN %(drawing)s THEN nextval('listener.ask_order') ELSE 1 END AS ask_order
