"""At which depth the logit lens reads what the model will say, over the tokens of many texts."""
