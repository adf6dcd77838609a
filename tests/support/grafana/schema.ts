// What Grafana's own types say of a dashboard's JSON, for the kinds of panels that ours has.
import type { Dashboard, DataQuery, FieldConfigSource, Panel, RowPanel } from '@grafana/schema';
import type { Options as Stat } from './node_modules/@grafana/schema/dist/types/raw/composable/stat/panelcfg/x/StatPanelCfg_types.gen';
import type { FieldConfig as SeriesField, Options as Series } from './node_modules/@grafana/schema/dist/types/raw/composable/timeseries/panelcfg/x/TimeSeriesPanelCfg_types.gen';

// A text of an enumeration is written as a text in JSON.
type Json<T> = T extends string
  ? `${T}`
  : T extends number | boolean | null | undefined
    ? T
    : T extends Array<infer E>
      ? Array<Json<E>>
      : T extends object
        ? { [K in keyof T]: Json<T[K]> }
        : T;

// Prometheus' queries are of a plugin, whose types are not in the package: these are all that ours has.
type Query = Json<Pick<DataQuery, 'refId' | 'hide'>> & {
  datasource: { type: 'prometheus'; uid: string };
  expr: string;
  legendFormat: string;
  editorMode: 'code';
  range: true;
};
type Of<T, O, F> = Json<Omit<Panel, 'type' | 'options' | 'fieldConfig' | 'targets'>> & {
  type: T;
  options: Json<O>;
  fieldConfig: Json<FieldConfigSource<F>>;
  targets: Query[];
};
type Known = Of<'stat', Stat, {}> | Of<'timeseries', Series, Partial<SeriesField>> | Json<RowPanel>;
export type Board = Json<Omit<Dashboard, 'panels'>> & { panels: Known[] };
