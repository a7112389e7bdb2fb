-- Draws the order of a question, before its rows are read; where no verdict will be written, none is drawn.
SELECT CASE WHEN %(drawing)s THEN nextval('listener.ask_order') ELSE 1 END AS ask_order
